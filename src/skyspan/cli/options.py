"""Options that several verbs share: the global ones (before or after the verb), the composition, inputs, consent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from skyspan.model.error import UsageError

if TYPE_CHECKING:
    from skyspan.app.settings import Settings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_NAMES = ("home", "workspace", "as_json", "debug")


@dataclass(frozen=True, slots=True)
class Globals:
    """The global options as given so far."""

    home: str | None = None
    workspace: str | None = None
    as_json: bool = False
    debug: bool = False

    def settings(self) -> Settings:
        """The settings these options and the environment make."""
        from skyspan.app.settings import read_settings

        return read_settings(self.home, self.workspace)


def remember(before: Globals, given: dict[str, Any]) -> Globals:
    """`before` with every global option of `given` that was really given; takes them out of `given`."""
    picked = {name: given.pop(name, None) for name in _NAMES}
    return replace(before, **{name: value for name, value in picked.items() if value})


def global_options(function: Decorated) -> Decorated:
    """Adds the global options to a command."""
    for option in (
        click.option("--debug", is_flag=True, help="Log more; show tracebacks."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output."),
        click.option("--workspace", metavar="W", help="Whose deployments and secrets."),
        click.option("--home", metavar="DIR", help="Where state is kept."),
    ):
        function = option(function)
    return function


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command that takes the global options too and gets them as its first argument, a `Globals`."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        def call(ctx: click.Context, /, **given: Any) -> Any:
            before = ctx.find_object(Globals) or Globals()
            return function(remember(before, given), **given)

        call.__doc__ = function.__doc__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return click.command(name, context_settings={"help_option_names": ["--help", "-h"]})(global_options(call))

    return decorate


def composition_option(function: Decorated) -> Decorated:
    """`-f/--file FILE|DIR`."""
    return click.option(
        "-f", "--file", "file", metavar="FILE|DIR", help="The composition; default: the nearest skyspan.yaml upward."
    )(function)


def input_options(function: Decorated) -> Decorated:
    """`--input k=v` and `--inputs FILE`."""
    function = click.option("--inputs", "inputs_file", metavar="FILE", help="Inputs from a YAML or JSON file.")(
        function
    )
    return input_option(function)


def input_option(function: Decorated) -> Decorated:
    """`--input k=v`."""
    return click.option("--input", "inputs", metavar="K=V", multiple=True, help="One input; may be repeated.")(function)


def consent_option(function: Decorated) -> Decorated:
    """`--yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def parse_inputs(given: tuple[str, ...]) -> dict[str, str]:
    """`k=v` pairs; raises UsageError for anything else."""
    pairs: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--input takes NAME=VALUE, not {item!r}")
        pairs[name] = value
    return pairs


def composition_path(file: str | None) -> Path:
    """The composition that `--file` means. Raises UsageError when there is none."""
    from skyspan.app.load import find

    return Path(file) if file else find(Path.cwd())


def on_terminal() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def deployment_name(name: str | None, file: str | None) -> str:
    """The deployment that is meant: the one named, else the composition's name. Raises UsageError when neither is
    there."""
    if name:
        return name
    from skyspan.app.load import load

    return load(composition_path(file)).composition.name
