"""Where the passphrase of a locked home comes from: the environment, a systemd credential, or a command."""

from __future__ import annotations

import shlex

from skyspan.app.settings import Settings
from skyspan.model.error import SealError, UsageError
from skyspan.model.secret import Secret

CREDENTIAL = "skyspan-passphrase"
_PATIENCE_S = 120.0
"""A command may ask a person."""


async def find_passphrase(settings: Settings) -> Secret | None:
    """The passphrase, or None for a home that a key file unlocks.

    SKYSPAN_PASSPHRASE wins over `$CREDENTIALS_DIRECTORY/skyspan-passphrase` and that over SKYSPAN_PASSPHRASE_COMMAND.
    Raises SealError when the source that is named gives nothing.
    """
    if settings.passphrase:
        return Secret(settings.passphrase)
    if settings.credentials is not None:
        path = settings.credentials / CREDENTIAL
        if path.is_file():
            try:
                return _given(path.read_text(encoding="utf-8", errors="surrogateescape"), str(path))
            except OSError as error:
                raise SealError(f"cannot read the credential {path}: {error.strerror}") from error
    if settings.passphrase_command:
        return await _from_command(settings.passphrase_command, settings)
    return None


async def _from_command(line: str, settings: Settings) -> Secret:
    from skyspan.contracts.transport import Command, Effect
    from skyspan.transports.local import LocalTransport

    try:
        argv = tuple(shlex.split(line))
    except ValueError as error:
        raise UsageError(f"SKYSPAN_PASSPHRASE_COMMAND is no command: {error}") from error
    if not argv:
        raise UsageError("SKYSPAN_PASSPHRASE_COMMAND is empty")
    here = LocalTransport(settings.child_env)
    try:
        done = await here.query(Command(argv, stdin=b"", timeout_s=_PATIENCE_S, effect=Effect.READ))
    finally:
        await here.close()
    if not done.ok:
        # Only what it complained about: its standard output may hold the passphrase.
        complaint = done.stderr.decode(errors="replace").strip()
        raise SealError(
            f"SKYSPAN_PASSPHRASE_COMMAND failed (exit {done.exit_code})",
            detail=complaint,
            hint=f"try it by hand: {shlex.join(argv)}",
        )
    return _given(done.stdout.decode(errors="surrogateescape"), "SKYSPAN_PASSPHRASE_COMMAND")


def _given(text: str, source: str) -> Secret:
    """One line end at the very end is not part of the passphrase."""
    passphrase = text.removesuffix("\n").removesuffix("\r")
    if not passphrase:
        raise SealError(f"{source} gives an empty passphrase", hint="check that it holds the passphrase of this home")
    return Secret(passphrase)
