"""Version constraints as OpenTofu and Terraform write them: `>= 1.8, != 1.9.0, ~> 1.10`. Pure."""

from __future__ import annotations

import re

Version = tuple[int, int, int]

_TERM = re.compile(r"^(=|!=|>=|<=|>|<|~>)?\s*v?(\d+)(?:\.(\d+))?(?:\.(\d+))?$")


def parse_version(text: str) -> Version:
    """The numbers of `1.12.6` or `1.13.0-beta1`; raises ValueError for anything else."""
    found = re.match(r"^v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        msg = f"{text!r} is no version"
        raise ValueError(msg)
    return int(found[1]), int(found[2]), int(found[3] or 0)


def constraint_problem(constraint: str) -> str:
    """What is wrong with `constraint`, or nothing. An empty constraint admits every version."""
    for term in _terms(constraint):
        if _TERM.match(term) is None:
            return f"{term!r} is no version constraint: write it as '>= 1.8' or '>= 1.8, < 2'"
    return ""


def satisfies(version: Version, constraint: str) -> bool:
    """Whether `version` meets every term of a well-formed `constraint`."""
    return all(_meets(version, term) for term in _terms(constraint))


def _terms(constraint: str) -> list[str]:
    return [term.strip() for term in constraint.split(",") if term.strip()]


def _meets(version: Version, term: str) -> bool:
    found = _TERM.match(term)
    if found is None:
        return False
    given = [int(part) for part in found.groups()[1:] if part is not None]
    wanted = (*given, 0, 0)[:3]
    match found[1] or "=":
        case "=":
            return version == wanted
        case "!=":
            return version != wanted
        case ">=":
            return version >= wanted
        case "<=":
            return version <= wanted
        case ">":
            return version > wanted
        case "<":
            return version < wanted
        case _:
            # `~> 1.2.3` lets only the last given part grow: everything before it has to stay.
            fixed = max(len(given) - 1, 1)
            return version >= wanted and version[:fixed] == wanted[:fixed]
