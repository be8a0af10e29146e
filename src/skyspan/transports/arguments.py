"""Owns the last moment before a command leaves: the only place where its secrets become text."""

from __future__ import annotations

from collections.abc import Mapping

from skyspan.contracts.transport import Argument, Command, Effect, Joined
from skyspan.model.secret import Secret


def revealed_argv(command: Command) -> list[str]:
    """The arguments in clear."""
    return [_revealed(argument) for argument in command.argv]


def revealed_env(env: Mapping[str, str | Secret]) -> dict[str, str]:
    """The environment in clear."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in env.items()}


def revealed_stdin(command: Command) -> bytes | None:
    """Standard input in clear."""
    if isinstance(command.stdin, Secret):
        return command.stdin.reveal().encode(errors="surrogateescape")
    return command.stdin


def refuse_write(command: Command) -> None:
    """Raise PermissionError for a command that is not marked as reading."""
    if command.effect is not Effect.READ:
        msg = f"only reading is allowed here, and this command writes: {command.display()}"
        raise PermissionError(msg)


def _revealed(argument: Argument) -> str:
    if isinstance(argument, Joined):
        return "".join(_revealed(part) for part in argument.parts)
    return argument.reveal() if isinstance(argument, Secret) else argument
