"""`skyspan start`, `stop` and `destroy`: verbs on what was applied, from what was recorded then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, consent_option, deployment_name, verb
from skyspan.cli.running import agree, declined, finish, run_and_show
from skyspan.model.lifecycle import Verb

if TYPE_CHECKING:
    from skyspan.app.runs import Request, Result
    from skyspan.app.session import Session


@verb("start")
@click.argument("name", required=False)
@composition_option
@consent_option
def start(given: Globals, name: str | None, file: str | None, yes: bool) -> int:
    """Bring back what was stopped, with the composition and inputs as last used."""
    return _run(given, Verb.START, deployment_name(name, file), yes=yes)


@verb("stop")
@click.argument("name", required=False)
@composition_option
@consent_option
def stop(given: Globals, name: str | None, file: str | None, yes: bool) -> int:
    """Suspend what can be suspended; what keeps running is named."""
    return _run(given, Verb.STOP, deployment_name(name, file), yes=yes)


@verb("destroy")
@click.argument("name", required=False)
@composition_option
@click.option("--only", metavar="S", multiple=True, help="Only this stage and what was built upon it.")
@consent_option
def destroy(given: Globals, name: str | None, file: str | None, only: tuple[str, ...], yes: bool) -> int:
    """Remove everything that was made, in reverse order; may be repeated after a failure."""
    return _run(given, Verb.DESTROY, deployment_name(name, file), only, yes=yes)


def _run(given: Globals, what: Verb, name: str, only: tuple[str, ...] = (), *, yes: bool) -> int:
    async def work(session: Session) -> Result | None:
        request = await _request(session, what, name, only)
        records = await session.store.stage_records(request.address)
        names = [record.address.name for record in records if not only or record.address.name in only]
        if not agree(f"{what.value.capitalize()} {name}?", yes, lambda: _show(what, name, names)):
            return None
        return await run_and_show(session, given, request)

    result = in_session(given.settings(), work)
    return finish(given, result, what) if result is not None else declined(given)


async def _request(session: Session, what: Verb, name: str, only: tuple[str, ...]) -> Request:
    from skyspan.app import queries
    from skyspan.app.prepare import recall
    from skyspan.app.runs import Request
    from skyspan.providers.registry import Registry

    record = await queries.find_deployment(session, name)
    request = Request(what, record.address, only=only)
    if what is Verb.START:
        return replace(request, prepared=recall(record, Registry()))
    return request


def _show(what: Verb, name: str, stages: list[str]) -> None:
    from skyspan.cli.views.plan import show_reverse

    show_reverse(what.value, name, stages)
