"""What a look at a host prints, read into values: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

ABSENT, REFUSED = "absent", "refused"

_NO_ROLES: Mapping[str, RoleLook] = MappingProxyType({})
_NO_CONTAINERS: Mapping[str, ContainerLook] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a flow in the background: when it began and ended on that host, what was printed, the last words
    on standard error, and how it ended."""

    begun: int
    ended: int
    text: str
    words: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True)
class RoleLook:
    """What goes on by itself, or did. `said` are the last words of what has ended."""

    alive: bool = False
    digest: str = ""
    port: int = 0
    window: Window | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class ContainerLook:
    """A container: `missing`, or its state in Docker's word; `trouble` is why nothing can run in it."""

    state: str
    addresses: tuple[str, ...] = ()
    tools: frozenset[str] = frozenset()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """One host. `docker` is how its daemon is asked, `absent`, or `refused` with its words."""

    now: int
    tools: frozenset[str] = frozenset()
    docker: str = ""
    containers: Mapping[str, ContainerLook] = field(default_factory=lambda: _NO_CONTAINERS)
    roles: Mapping[str, RoleLook] = field(default_factory=lambda: _NO_ROLES)
    foreign: str = ""


def parse_survey(text: str) -> Look:
    """What SURVEY printed; raises ValueError for what it cannot have printed."""
    found: dict[tuple[str, str], list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            kind, _, name = line[1:].partition(" ")
            lines = found.setdefault((kind, name), [])
        else:
            lines.append(line)
    if ("now", "") not in found:
        msg = "it does not tell the time"
        raise ValueError(msg)
    return Look(
        now=int(found["now", ""][0]),
        tools=frozenset(found.get(("tools", ""), ())),
        docker=" ".join(found.get(("docker", ""), ())),
        containers={name: _container(rows) for (kind, name), rows in found.items() if kind == "container"},
        roles={name: _role(name, rows, found) for (kind, name), rows in found.items() if kind == "role"},
        foreign=" ".join(found.get(("foreign", ""), ())),
    )


def _container(rows: Sequence[str]) -> ContainerLook:
    state, *words = rows[0].split()
    addresses = [word for word in words if "." in word or ":" in word]
    if "!" in rows[1:]:
        words = [row for row in rows[1:] if row not in {"!", ""}]
        return ContainerLook(state, tuple(addresses), trouble=words[-1] if words else "nothing can run in it")
    return ContainerLook(state, tuple(addresses), frozenset(rows[1:]))


def _role(name: str, rows: Sequence[str], found: Mapping[tuple[str, str], list[str]]) -> RoleLook:
    values = dict(row.split(" ", 1) for row in rows if " " in row)
    said = "\n".join(line[1:] for line in found.get(("said", name), ()))
    window = found.get(("window", name))
    return RoleLook(
        alive=values.get("alive") == "yes",
        digest=values.get("digest", ""),
        port=int(values.get("port", 0)),
        window=_window([line[1:] for line in window]) if window else None,
        said=said.strip(),
    )


def _window(lines: Sequence[str]) -> Window | None:
    """None for one that was cut off while it was written."""
    times = lines[0].split()
    if len(times) != 3 or len(lines) < 2:
        return None
    begun, ended, code = (int(value) for value in times)
    return Window(begun, ended, "\n".join(lines[2:]), lines[1].strip(), code)
