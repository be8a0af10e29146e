"""`skyspan retry [NAME] --from STAGE`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, consent_option, deployment_name, verb
from skyspan.cli.running import agree, finish, run_and_show
from skyspan.model.lifecycle import Verb

if TYPE_CHECKING:
    from skyspan.app.runs import Request, Result
    from skyspan.app.session import Session


@verb("retry")
@click.argument("name", required=False)
@composition_option
@click.option("--from", "stage", metavar="STAGE", required=True, help="This stage, all after it, and what failed.")
@consent_option
def retry(given: Globals, name: str | None, file: str | None, stage: str, yes: bool) -> int:
    """Run a failed run on, with the composition and inputs of then; stages that ended well are left alone."""
    chosen = deployment_name(name, file)

    async def work(session: Session) -> Result | None:
        from skyspan.app import recovery

        request = await recovery.retry_request(session, chosen, stage)
        if not agree(f"Run {chosen} on from {stage}?", yes, lambda: _show(chosen, request)):
            return None
        return await run_and_show(session, given, request)

    result = in_session(given.settings(), work)
    return finish(given, result, Verb(result.document["run"]["verb"])) if result is not None else 1


def _show(name: str, request: Request) -> None:
    from skyspan.cli.views.problem import note

    note(f"{request.verb.value} {name} again, these stages: {', '.join(sorted(request.chosen or ()))}")
