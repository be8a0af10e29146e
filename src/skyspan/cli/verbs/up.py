"""`skyspan up` and `skyspan create`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import (
    Globals,
    composition_option,
    composition_path,
    consent_option,
    input_options,
    parse_inputs,
    verb,
)
from skyspan.cli.running import agree, declined, finish, run_and_show
from skyspan.model.error import RefusedError
from skyspan.model.lifecycle import DeploymentStatus, Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyspan.app.runs import Request, Result
    from skyspan.app.session import Session


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `up`."""

    name: str | None
    file: str | None
    inputs: tuple[str, ...]
    inputs_file: str | None
    only: tuple[str, ...]
    plan_file: str | None
    fail_fast: bool
    strict: bool
    yes: bool


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        consent_option,
        click.option("--strict", is_flag=True, help="A degraded result exits with 3."),
        click.option("--fail-fast", is_flag=True, help="Start nothing new after the first failure."),
        click.option("--plan", "plan_file", metavar="P", help="Apply this saved plan, and nothing else."),
        click.option("--only", metavar="S", multiple=True, help="Only this stage and what it needs; may be repeated."),
        input_options,
        composition_option,
        click.argument("name", required=False),
    ):
        function = option(function)
    return function


@verb("up")
@_options
def up(given: Globals, **options: Any) -> int:
    """Bring the deployment to what the composition says: create what is missing, change what differs."""
    return _up(given, Options(**options), fresh=False)


@verb("create")
@_options
def create(given: Globals, **options: Any) -> int:
    """Like `up`, for a deployment that does not exist yet; an existing one is described and left alone."""
    return _up(given, Options(**options), fresh=True)


def _up(given: Globals, options: Options, *, fresh: bool) -> int:
    async def work(session: Session) -> Result | None:
        request = await _request(session, given, options, fresh=fresh)
        return await run_and_show(session, given, request) if request is not None else None

    result = in_session(given.settings(), work)
    return finish(given, result, Verb.UP, strict=options.strict) if result is not None else declined(given)


async def _request(session: Session, given: Globals, options: Options, *, fresh: bool) -> Request | None:
    """What is to be done, once it is agreed to; None when it is not."""
    from skyspan.app.plans import approved_changes, plan_of, read_plan, refuse_stale
    from skyspan.app.prepare import Given, prepare
    from skyspan.app.runs import Request
    from skyspan.cli.templates import tell_of_changed_templates
    from skyspan.cli.views.plan import show_plan
    from skyspan.providers.registry import Registry

    path = Given(composition_path(options.file), parse_inputs(options.inputs), options.inputs_file)
    prepared = await prepare(session, path, Registry())
    address = session.address(options.name or prepared.name)
    if fresh:
        await _refuse_existing(session, address.name)
    await tell_of_changed_templates(session, prepared, address)
    request = Request(Verb.UP, address, prepared, options.only, options.fail_fast)
    question = f"Carry this out on {address.name}?"
    if options.plan_file:
        saved = read_plan(Path(options.plan_file))
        refuse_stale(saved, prepared, address.name)
        approved = replace(request, approved=approved_changes(saved.plan), only=saved.only)
        agreed = agree(question, options.yes, lambda: show_plan(saved.plan.to_json(), err=True))
        return approved if agreed else None
    if options.yes:
        return request
    # Asked first whether somebody can be asked at all: looking may take minutes.
    agree(question, options.yes, lambda: None) if not _can_ask() else None
    looked = await run_and_show(session, given, Request(Verb.PLAN, address, prepared, options.only))
    plan = plan_of(looked, prepared, address.name)
    if not agree(question, options.yes, lambda: show_plan(plan.to_json(), err=True)):
        return None
    return replace(request, approved=approved_changes(plan))


def _can_ask() -> bool:
    from skyspan.cli.options import on_terminal

    return on_terminal()


async def _refuse_existing(session: Session, name: str) -> None:
    from skyspan.app.documents import timestamp

    known = await session.store.deployment(session.address(name))
    if known is None or known.status in (DeploymentStatus.PENDING, DeploymentStatus.DESTROYED):
        return
    made = f"made {timestamp(known.created_at)} from {known.folder}"
    raise RefusedError(
        f"deployment {name} exists already: {known.status.value}, {made}",
        hint=f"`skyspan status {name}` shows it; `skyspan up` changes it; `skyspan up NAME` makes another one",
    )
