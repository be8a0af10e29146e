"""`skyspan state list|pull|push|history|rollback|settle|unlock [NAME] --stage S`: what a terraform stage keeps."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, consent_option, deployment_name, verb
from skyspan.cli.running import agree
from skyspan.cli.views.document import show_document, show_text
from skyspan.model.error import UsageError

if TYPE_CHECKING:
    from skyspan.app.session import Session


@click.group("state", context_settings={"help_option_names": ["--help", "-h"]})
def state() -> None:
    """Look into the state that a terraform stage keeps, go back in it, and settle what a killed apply left."""


def _of_stage(function: Callable[..., Any]) -> Callable[..., Any]:
    """`[NAME] -f FILE --stage S`."""
    function = click.option("--stage", metavar="S", required=True, help="Which stage.")(function)
    return click.argument("name", required=False)(composition_option(function))


def _answer(given: Globals, work: Callable[[Session], Awaitable[dict[str, Any]]], show: Callable[[Any], None]) -> None:
    document = in_session(given.settings(), work)
    (show_document if given.as_json else show)(document)


def _ask(question: str, *, yes: bool) -> None:
    if not agree(question, yes, show=lambda: None, hint="look with `skyspan state list`, then add --yes"):
        raise click.Abort


@_of_stage
def _list(given: Globals, name: str | None, file: str | None, stage: str) -> None:
    """List what the state holds, what a killed apply left beside it, and who has it locked."""
    from skyspan.app import state as use
    from skyspan.cli.views.state import show_resources

    chosen = deployment_name(name, file)
    _answer(given, lambda session: use.list_resources(session, chosen, stage), show_resources)


@_of_stage
@click.option("--version", "version", metavar="SERIAL", help="An earlier one, or `errored`.")
def _pull(given: Globals, name: str | None, file: str | None, stage: str, version: str | None) -> None:
    """Print the state itself, secrets in clear. That you did is remembered: see `skyspan audit`."""
    from skyspan.app import state as use
    from skyspan.cli.views.problem import note
    from skyspan.cli.views.state import show_state

    chosen = deployment_name(name, file)
    data = in_session(given.settings(), lambda session: use.pull(session, chosen, stage, version))
    note("a state holds secrets in clear: leave it in no file, and paste it nowhere")
    show_state(data)


@_of_stage
@click.option("--force", is_flag=True, help="Even if it is older or of another lineage.")
@consent_option
def _push(given: Globals, name: str | None, file: str | None, stage: str, force: bool, yes: bool) -> None:
    """Put the state from standard input in place of the one that stands, which stays as an earlier version.

    It has to be newer (serial) and of the same lineage. Resources are not touched: the next plan shows what differs.
    """
    from skyspan.app import state as use

    chosen = deployment_name(name, file)
    if sys.stdin.isatty():
        raise UsageError("the state comes from standard input", hint="skyspan state push --stage S --yes < FILE")
    data = sys.stdin.buffer.read()
    if not data.strip():
        raise UsageError("standard input is empty", hint="skyspan state push --stage S --yes < FILE")
    _ask(f"replace the state of {stage}?", yes=yes)
    _answer(
        given,
        lambda session: use.push(session, chosen, stage, data, force=force),
        lambda document: show_text(f"serial {document['serial']} stands now"),
    )


@_of_stage
def _history(given: Globals, name: str | None, file: str | None, stage: str) -> None:
    """List earlier states and broken locks, oldest first; the last ten of each are kept."""
    from skyspan.app import state as use
    from skyspan.cli.views.state import show_history

    chosen = deployment_name(name, file)
    _answer(given, lambda session: use.history(session, chosen, stage), show_history)


@_of_stage
@click.option("--to", "version", metavar="SERIAL", required=True, help="Which one, or `errored`.")
@consent_option
def _rollback(given: Globals, name: str | None, file: str | None, stage: str, version: str, yes: bool) -> None:
    """Let an earlier state stand again, under a serial of its own.

    Resources are not touched: the next plan shows what differs.
    """
    from skyspan.app import state as use

    chosen = deployment_name(name, file)
    what = version if version == "errored" else f"serial {version}"
    _ask(f"let {what} of {stage} stand again?", yes=yes)
    _answer(
        given,
        lambda session: use.rollback(session, chosen, stage, version),
        lambda document: show_text(f"{what} stands again, as serial {document['serial']}"),
    )


@click.argument("address")
@_of_stage
@click.option("--import-id", metavar="ID", help="It exists: import it by this.")
@click.option("--absent", is_flag=True, help="It does not exist.")
def _settle(
    given: Globals, address: str, name: str | None, file: str | None, stage: str, import_id: str | None, absent: bool
) -> None:
    """Say what a resource is that a killed apply left in doubt; the next plan acts on it."""
    from skyspan.app import state as use

    if bool(import_id) == absent:
        raise UsageError("say either --import-id ID or --absent")
    chosen = deployment_name(name, file)
    _answer(
        given,
        lambda session: use.settle(session, chosen, stage, address, import_id),
        lambda _: show_text(f"{address} is settled: {f'it is {import_id}' if import_id else 'it does not exist'}"),
    )


@_of_stage
@consent_option
def _unlock(given: Globals, name: str | None, file: str | None, stage: str, yes: bool) -> None:
    """Free the state of a command that ended where Skyspan cannot see it. What it left is still rescued."""
    from skyspan.app import state as use

    chosen = deployment_name(name, file)
    _ask(f"are you sure that nothing works on {stage} any more?", yes=yes)
    _answer(
        given,
        lambda session: use.unlock(session, chosen, stage),
        lambda document: show_text(
            f"broke the lock {document['unlocked']}" if document["unlocked"] else "no lock was held"
        ),
    )


for _name, _function in (
    ("list", _list),
    ("pull", _pull),
    ("push", _push),
    ("history", _history),
    ("rollback", _rollback),
    ("settle", _settle),
    ("unlock", _unlock),
):
    state.add_command(verb(_name)(_function))
