"""`skyspan plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skyspan.cli.asyncs import in_session
from skyspan.cli.options import Globals, composition_option, composition_path, input_options, parse_inputs, verb
from skyspan.cli.running import EXIT_CHANGES, run_and_show
from skyspan.cli.views.document import show_document
from skyspan.model.lifecycle import Verb

if TYPE_CHECKING:
    from skyspan.app.session import Session


@verb("plan")
@click.argument("name", required=False)
@composition_option
@input_options
@click.option("--only", metavar="S", multiple=True, help="Only this stage and what it needs; may be repeated.")
@click.option("--out", metavar="P", help="Save the plan to be applied by `skyspan up --plan P`.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 5 when changes are pending.")
def plan(given: Globals, **options: Any) -> int:
    """Show what `up` would do, stage by stage; what cannot be known yet is named, never guessed."""
    from skyspan.app.plans import plan_of, save_plan
    from skyspan.app.prepare import Given, prepare
    from skyspan.app.runs import Request
    from skyspan.cli.templates import tell_of_changed_templates
    from skyspan.cli.views.plan import show_plan
    from skyspan.cli.views.problem import note
    from skyspan.planning.plan import Plan, SavedPlan
    from skyspan.providers.registry import Registry

    only, out = options["only"], options["out"]
    what = Given(composition_path(options["file"]), parse_inputs(options["inputs"]), options["inputs_file"])

    async def make(session: Session) -> Plan:
        prepared = await prepare(session, what, Registry())
        address = session.address(options["name"] or prepared.name)
        await tell_of_changed_templates(session, prepared, address)
        result = await run_and_show(session, given, Request(Verb.PLAN, address, prepared, only))
        found = plan_of(result, prepared, address.name)
        if out:
            save_plan(Path(out), SavedPlan(found, created_at=session.clock.now(), only=only))
        return found

    found = in_session(given.settings(), make)
    (show_document if given.as_json else show_plan)(found.to_json())
    if out and not given.as_json:
        note(f"saved to {out}: skyspan up --plan {out}")
    return EXIT_CHANGES if options["detailed_exitcode"] and found.has_changes else 0
