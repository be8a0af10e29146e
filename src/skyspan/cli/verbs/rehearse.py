"""`skyspan rehearse run|exec`: the composition for real, inside a world that nothing can leave."""

from __future__ import annotations

import click

from skyspan.cli.options import Globals, composition_option, composition_path, input_option, parse_inputs, verb
from skyspan.cli.views.document import show_document


@click.group("rehearse", context_settings={"help_option_names": ["--help", "-h"]})
def rehearse() -> None:
    """Rehearse a composition against stand-ins: real tools, no cloud, no way out (needs root)."""


@composition_option
@input_option
def _run(given: Globals, file: str | None, inputs: tuple[str, ...]) -> int:
    """Rehearse the whole cycle: up, up again, check, stop, start, trouble, destroy, proof that nothing is left."""
    from skyspan.app.load import load
    from skyspan.app.rehearsing import rehearsable, run_cycle
    from skyspan.app.settings import process_environment
    from skyspan.cli.templates import templates_of
    from skyspan.cli.views.rehearsal import show_happening, show_report

    loaded = load(composition_path(file))
    world = rehearsable(loaded, templates_of(given, loaded).texts, parse_inputs(inputs))
    report = run_cycle(world, process_environment(), show_happening)
    if given.as_json:
        show_document(report.document())
    else:
        show_report(report)
    return 0 if report.passed else 1


@composition_option
@input_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def _exec(given: Globals, file: str | None, inputs: tuple[str, ...], command: tuple[str, ...]) -> int:
    """Run any command (a shell, `skyspan up`) inside the stand-in world: rehearse exec -f F -- COMMAND."""
    from skyspan.app.load import load
    from skyspan.app.rehearsing import exec_in_world, rehearsable
    from skyspan.app.settings import process_environment
    from skyspan.cli.templates import templates_of
    from skyspan.cli.views.rehearsal import show_happening

    loaded = load(composition_path(file))
    world = rehearsable(loaded, templates_of(given, loaded).texts, parse_inputs(inputs))
    return exec_in_world(world, command, process_environment(), show_happening)


rehearse.add_command(verb("run")(_run))
rehearse.add_command(verb("exec")(_exec))
