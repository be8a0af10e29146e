"""The entry point: finds the verb, imports only what it needs, and turns every error into a message and a status."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import click

from skyspan import __version__
from skyspan.cli.options import Globals, global_options, remember
from skyspan.model.error import SkyspanError, UsageError

EXIT_CANCELLED = 130

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "init": "skyspan.cli.verbs.init:init",
        "validate": "skyspan.cli.verbs.validate:validate",
        "graph": "skyspan.cli.verbs.graph:graph",
        "schema": "skyspan.cli.verbs.schema:schema",
        "plan": "skyspan.cli.verbs.plan:plan",
        "up": "skyspan.cli.verbs.up:up",
        "create": "skyspan.cli.verbs.up:create",
        "start": "skyspan.cli.verbs.lifecycle:start",
        "stop": "skyspan.cli.verbs.lifecycle:stop",
        "destroy": "skyspan.cli.verbs.lifecycle:destroy",
        "cancel": "skyspan.cli.verbs.cancel:cancel",
        "resume": "skyspan.cli.verbs.resume:resume",
        "retry": "skyspan.cli.verbs.retry:retry",
        "list": "skyspan.cli.verbs.listing:list_deployments",
        "status": "skyspan.cli.verbs.status:status",
        "check": "skyspan.cli.verbs.check:check",
        "runs": "skyspan.cli.verbs.runs:runs",
        "show": "skyspan.cli.verbs.runs:show",
        "events": "skyspan.cli.verbs.logs:events",
        "logs": "skyspan.cli.verbs.logs:logs",
        "outputs": "skyspan.cli.verbs.outputs:outputs",
        "links": "skyspan.cli.verbs.outputs:links",
        "watch": "skyspan.cli.verbs.watch:watch",
        "state": "skyspan.cli.verbs.state:state",
        "secrets": "skyspan.cli.verbs.secrets:secrets",
        "connections": "skyspan.cli.verbs.connections:connections",
        "providers": "skyspan.cli.verbs.providers:providers",
        "doctor": "skyspan.cli.verbs.doctor:doctor",
        "backup": "skyspan.cli.verbs.backup:backup",
        "restore": "skyspan.cli.verbs.backup:restore",
        "export": "skyspan.cli.verbs.export:export",
        "import": "skyspan.cli.verbs.export:import_",
        "prune": "skyspan.cli.verbs.prune:prune",
        "audit": "skyspan.cli.verbs.audit:audit",
        "rehearse": "skyspan.cli.verbs.rehearse:rehearse",
    }
)
"""Every verb and where it is; imported only when it is called."""

HELP = """\
Usage: skyspan [OPTIONS] VERB [ARGUMENTS]

One deployment across clouds, clusters, hosts and labs,
and the link between them.

  Write     init  validate  graph  schema
  Change    plan  up  create  start  stop  destroy  cancel  resume  retry
  Look      list  status  check  runs  show  events  logs  outputs  links  watch
  Rehearse  rehearse run  rehearse exec
  Manage    secrets  connections  providers  doctor  state
  Keep      backup  restore  export  import  prune  audit

Options, before or after the verb:
  --home DIR       where state is kept [SKYSPAN_HOME; ~/.local/state/skyspan]
  --workspace W    whose deployments and secrets [SKYSPAN_WORKSPACE; default]
  --json           one JSON document on standard output
  --debug          log more; show tracebacks
  --version        print the version
  --help           this text; `skyspan VERB --help` for a verb

First steps: skyspan init && skyspan plan && skyspan up
"""


class Verbs(click.Group):
    """The verbs, imported lazily, with a help screen that fits 24 lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = VERBS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = click.utils.make_str(args[0])
        if name not in VERBS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, VERBS, n=1)
            ctx.fail(f"no such verb {name!r}." + (f" Did you mean {near[0]!r}?" if near else " See skyspan --help."))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read our output has had enough; click would call that a failure. Nothing must be flushed again.
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
            return 0

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(HELP)


@click.group(cls=Verbs, context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(__version__, prog_name="skyspan", message="%(prog)s %(version)s")
@global_options
@click.pass_context
def skyspan(ctx: click.Context, /, **given: Any) -> None:
    """One deployment across clouds, clusters, hosts and labs, and the link between them."""
    ctx.obj = remember(Globals(), given)


def main() -> NoReturn:
    """Run the command line and exit with its pinned status."""
    from skyspan.app.settings import colours
    from skyspan.cli.views.problem import ensure_printable

    ensure_printable()
    wanted = colours()
    # A context of our own, so that errors told after the verb's own context has ended look the same.
    with click.Context(skyspan, color=wanted).scope():
        status = _run(wanted)
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process at once: everything is closed and written, and taking the modules apart costs 65 ms."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Whoever read our output has had enough.
        pass
    os._exit(status)


def _run(color: bool | None) -> int:
    try:
        result = skyspan.main(standalone_mode=False, color=color)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_CANCELLED
    except click.ClickException as error:
        if "--json" in sys.argv:
            return _told(UsageError(error.format_message()))
        error.show()
        return error.exit_code
    except SkyspanError as error:
        return _told(error)
    except Exception as error:
        return _told(_bug(error))
    return result if isinstance(result, int) else 0


def _told(error: SkyspanError) -> int:
    from skyspan.cli.views.problem import show_problem

    show_problem(error, as_json="--json" in sys.argv)
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    return error.exit_status


def _bug(error: Exception) -> SkyspanError:
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    report = SkyspanError(
        f"internal error: {type(error).__name__}: {error}",
        detail=f"at {place.filename}:{place.lineno} in {place.name}",
        hint="this is a bug in Skyspan; repeat with --debug for the whole traceback",
    )
    report.__cause__ = error
    return report
