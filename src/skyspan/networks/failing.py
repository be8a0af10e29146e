"""How a command that failed on a host is told, and whether it would have needed root."""

from __future__ import annotations

from collections.abc import Iterable

from skyspan.contracts.context import ReadContext
from skyspan.contracts.transport import Completed
from skyspan.model.error import ToolFailedError
from skyspan.model.secret import MASK, Secret


def by_sudo(host: str, ctx: ReadContext) -> bool:
    """Whether commands on a host of the composition have to ask for root: its login is somebody else's."""
    known = ctx.hosts.get(host)
    return known is not None and known.user != "root"


def words_of(done: Completed, secrets: Iterable[Secret] = ()) -> str:
    """The command's own last words, without what nobody may see."""
    words = done.last_words()
    for secret in secrets:
        words = words.replace(secret.reveal(), MASK)
    return words


def failure(done: Completed, what: str, words: str, host: str, *, sudo: bool) -> ToolFailedError:
    """That `what` failed on a host, and how it ended."""
    ended = "took too long" if done.timed_out else f"failed (exit status {done.exit_code})"
    hint = f"it needs root: log in as root, or let the user run sudo without a password on {host}" if sudo else ""
    return ToolFailedError(f"{what} {ended}", detail=words, hint=hint)
