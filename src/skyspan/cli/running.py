"""What the verbs that run something share: consent, the view while it runs, the result and its exit status."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skyspan.cli.options import Globals, on_terminal
from skyspan.cli.prompts import confirm
from skyspan.model.error import UsageError
from skyspan.model.lifecycle import RunStatus, Verb

if TYPE_CHECKING:
    from skyspan.app.runs import Request, Result
    from skyspan.app.session import Session

EXIT_FAILED = 1
EXIT_DEGRADED = 3
EXIT_CHANGES = 5
EXIT_CANCELLED = 130


async def run_and_show(session: Session, given: Globals, request: Request) -> Result:
    """Carry out the run under the view that fits the terminal; a plan in a script is shown as its result alone."""
    from skyspan.app.recovery import run_request
    from skyspan.app.runs import Watcher
    from skyspan.cli.views.problem import show_diagnostics
    from skyspan.cli.views.run import Quiet, run_view

    looking = request.verb is Verb.PLAN and not on_terminal()
    view = Quiet() if looking and not given.debug else run_view(debug=given.debug)
    with view:
        return await run_request(session, request, Watcher(view.event, view.line, show_diagnostics))


def finish(given: Globals, result: Result, verb: Verb, *, strict: bool = False) -> int:
    """Show the result, and give the exit status."""
    from skyspan.cli.views.document import show_document
    from skyspan.cli.views.run import show_result

    if given.as_json:
        show_document(result.document)
    else:
        show_result(result.document, verb, next_steps=_next_steps(result.document, verb))
    return exit_status(result.ended.status, strict=strict)


def exit_status(status: RunStatus, *, strict: bool) -> int:
    """The pinned exit status of a run's end."""
    match status:
        case RunStatus.SUCCEEDED:
            return 0
        case RunStatus.DEGRADED:
            return EXIT_DEGRADED if strict else 0
        case RunStatus.CANCELLED:
            return EXIT_CANCELLED
        case _:
            return EXIT_FAILED


def agree(
    question: str, yes: bool, show: Callable[[], None], hint: str = "look with `skyspan plan`, then give --yes"
) -> bool:
    """Whether the person agrees to what `show` shows. Raises UsageError where nobody can be asked."""
    if yes:
        return True
    if not on_terminal():
        raise UsageError(
            "this would change things, and there is no terminal to ask on",
            hint=hint,
        )
    show()
    return confirm(question)


def declined(given: Globals) -> int:
    """Nothing is done, as the person did not agree: say so, and give the exit status."""
    from skyspan.cli.views.document import show_document
    from skyspan.cli.views.problem import note

    if given.as_json:
        show_document({"error": {"kind": "Declined", "summary": "nothing was done", "detail": "", "hint": ""}})
    note("nothing was done")
    return EXIT_FAILED


def _next_steps(document: dict[str, Any], verb: Verb) -> tuple[str, ...]:
    name, run = document["deployment"], document["run"]
    failed = [stage["name"] for stage in document["stages"] if stage["status"] == "failed"]
    if run["status"] == "failed" and verb is Verb.CHECK:
        return (f"skyspan plan   # what bringing {name} back would do", "skyspan up     # do it")
    if run["status"] in ("failed", "degraded") and failed:
        return (
            f"skyspan logs {name} --stage {failed[0]}",
            f"skyspan {verb.value}   # goes on where it stopped",
            f"skyspan retry {name} --from {failed[0]}   # the same, with the composition and inputs of then",
        )
    if run["status"] == "cancelled":
        return (f"skyspan {verb.value}   # goes on where it stopped",)
    if verb is Verb.UP and any(stage["outputs"] for stage in document["stages"]):
        return (f"skyspan outputs {name}",)
    return ()
