"""`skyspan check [NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, deployment_name, verb
from skyspan.cli.running import finish, run_and_show
from skyspan.model.lifecycle import Verb

if TYPE_CHECKING:
    from skyspan.app.runs import Result
    from skyspan.app.session import Session


@verb("check")
@click.argument("name", required=False)
@composition_option
def check(given: Globals, name: str | None, file: str | None) -> int:
    """Look at everything that was applied: is it there, healthy, and still what was applied?"""
    chosen = deployment_name(name, file)

    async def work(session: Session) -> Result:
        from skyspan.app import queries
        from skyspan.app.runs import Request

        record = await queries.find_deployment(session, chosen)
        return await run_and_show(session, given, Request(Verb.CHECK, record.address))

    return finish(given, in_session(given.settings(), work), Verb.CHECK)
