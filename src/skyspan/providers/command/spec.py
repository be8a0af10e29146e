"""The settings of a command stage."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.secret import Secret

OUTPUT_VARIABLE = "SKYSPAN_OUTPUT"
"""Names the file that a command appends its outputs to."""

_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def _text(value: Any) -> Any:
    """Numbers and truth values as a shell would write them: YAML reads `[sleep, 1]` as a number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _no_secret_argument(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if not value:
            msg = "an empty list is no command"
            raise ValueError(msg)
        if any(isinstance(item, Secret) for item in value):
            msg = (
                "an argument holds a secret, which everybody on that machine could read in its process list: "
                "pass it by `env` or `stdin`, or write the command as one string, which never becomes an argument"
            )
            raise ValueError(msg)
    elif isinstance(value, str) and not value.strip():
        msg = "an empty text is no command"
        raise ValueError(msg)
    return value


Text: TypeAlias = Annotated[str, BeforeValidator(_text)]
SecretText: TypeAlias = Annotated[str | Secret, BeforeValidator(_text)]
Script: TypeAlias = Annotated[str | Secret | tuple[Text, ...], BeforeValidator(_no_secret_argument)]
"""An argument list, started as it is; or one text, run by `sh -euc`."""


class CommandSpec(Spec):
    """What to run, where, and how to tell whether it is there."""

    run: Script
    """The command: a list of arguments, or one text for `sh -euc`. It must be safe to run again."""
    host: str | None = None
    """The host of the composition to run on; default: here."""
    env: dict[str, SecretText] = Field(default_factory=dict)
    """Environment variables, for all commands of the stage; secrets are welcome."""
    stdin: SecretText | None = None
    """What `run` reads from standard input."""
    workdir: str = "."
    """Folder to run in, relative to the composition's folder; on a host, relative to the login folder."""
    check: Script | None = None
    """Tells whether the thing is there: exit status 0 is yes, any other no. It must not change anything."""
    creates: str | tuple[str, ...] = ()
    """Paths (relative to `workdir`) that exist when the thing is there; used where there is no `check`."""
    destroy: Script | None = None
    """Undoes `run`; it must tolerate that there is nothing to undo. Without it, destroying only forgets the stage."""
    start: Script | None = None
    """Brings the thing back after `stop`; default: `run`."""
    stop: Script | None = None
    """Suspends the thing. Without it, the stage is left as it is by `skyspan stop`."""

    @field_validator("env")
    @classmethod
    def _variables(cls, env: dict[str, str | Secret]) -> dict[str, str | Secret]:
        for name in env:
            if not _VARIABLE.match(name) or name == OUTPUT_VARIABLE:
                msg = f"{name!r} cannot be the name of an environment variable here"
                raise ValueError(msg)
        return env

    @model_validator(mode="after")
    def _printable_paths(self) -> CommandSpec:
        if any("\0" in path for path in (self.workdir, *self.created)):
            msg = "a path cannot hold a NUL character"
            raise ValueError(msg)
        return self

    @property
    def created(self) -> tuple[str, ...]:
        """`creates` as a list, however it was written."""
        return (self.creates,) if isinstance(self.creates, str) else self.creates
