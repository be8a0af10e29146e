"""A lab's name by the git repository in whose top folder its topology is, as containerlab has it (core/config.go)."""

from __future__ import annotations

from pathlib import Path

BRANCH, HASH = "__gitBranch__", "__gitHash__"
_NONE = "none"


def named_by_git(name: object, folder: Path) -> str | None:
    """`name` with the branch and the short hash put in; None when it does not ask for them."""
    if not isinstance(name, str) or not (BRANCH in name or HASH in name):
        return None
    branch, commit = _head(folder / ".git")
    return name.replace(BRANCH, branch.replace("/", "-")).replace(HASH, commit)


def _head(repository: Path) -> tuple[str, str]:
    """Branch (`HEAD` when none is checked out) and the first seven digits of the commit."""
    head = _text(repository / "HEAD")
    if not head.startswith("ref: "):
        return ("HEAD", head[:7]) if head else (_NONE, _NONE)
    reference = head.removeprefix("ref: ")
    packed = (line.partition(" ") for line in _text(repository / "packed-refs").splitlines())
    commit = _text(repository / reference) or next((found for found, _, name in packed if name == reference), "")
    return reference.removeprefix("refs/heads/"), commit[:7] or _NONE


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
