"""Which number, name and management network a lab gets on a host: pure, beside what is there already."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from skyspan.model.error import SpecError
from skyspan.providers.lab.containers import LAB_LABEL, HostLook
from skyspan.providers.lab.management import (
    PoolExhaustedError,
    allocate,
    bridge_name,
    mark,
    network_name,
    overlapping,
)
from skyspan.providers.netlab.commands import Place
from skyspan.providers.netlab.parse import Survey
from skyspan.providers.netlab.spec import NetlabSpec

MOST = 200
"""netlab's `multilab.id` ends there."""

_BEGINNING = 6


def key_of(owner: str) -> str:
    """The name of a stage's folder."""
    return f"nl-{mark(owner)}"


def unplaced(owner: str) -> Place:
    """What is known of a lab's place before its host was looked at."""
    return Place(key_of(owner), owner, number=0, name="")


def placed(
    spec: NetlabSpec, owner: str, before: Place | None, survey: Survey, look: HostLook, *, external: bool
) -> Place:
    """The lab's place: as `before` where the settings allow it, else one that nobody has. Raises SpecError when what
    the settings ask for is taken, and when nothing is left."""
    kept = before is not None and before.owner == owner
    number = spec.number or (before.number if before is not None and kept else 0)
    taken = _numbers(survey, look, before)
    if not number:
        first = int(mark(owner), 16)
        free = ((first + step) % MOST + 1 for step in range(MOST))
        number = next((one for one in free if one not in taken), 0)
        if not number:
            raise SpecError(f"all {MOST} of netlab's lab numbers are taken on the host", hint="destroy labs there")
    elif number in taken:
        raise SpecError(f"netlab's lab number {number} is {taken[number]}'s", hint="leave `number` out")
    name = spec.name or f"ml-{number}"
    _refuse_name(name, survey, look, before)
    if external:
        return Place(key_of(owner), owner, number, name)
    network, bridge = network_name(owner), bridge_name(owner)
    management = spec.management or (before.management if before is not None and kept else "")
    others = [
        (f"the lab of {other.owner}", ip_network(other.management)) for other in survey.others if other.management
    ]
    used = [*look.taken(besides=(network,)), *others]
    if management:
        clash = overlapping(management, used)
        if clash and spec.management:
            raise SpecError(
                f"the management network {management} overlaps {', '.join(clash)}",
                hint="leave `management` out to have a free one chosen",
            )
        if not clash or _runs(before, look):
            return Place(key_of(owner), owner, number, name, network, bridge, management)
    try:
        management = allocate(owner, [net for _, net in used]).ipv4
    except PoolExhaustedError as error:
        raise SpecError(str(error), hint="give one with `management`") from error
    return Place(key_of(owner), owner, number, name, network, bridge, management)


def _runs(before: Place | None, look: HostLook) -> bool:
    """Whether the lab is there: its network stays as it is while it is."""
    return before is not None and bool(containers_of(before, look))


def containers_of(place: Place, look: HostLook) -> list[str]:
    """The containers of the lab of that name."""
    return [item.name for item in look.containers if item.labels.get(LAB_LABEL) == place.name]


def _numbers(survey: Survey, look: HostLook, before: Place | None) -> dict[int, str]:
    """Numbers that are taken, with who has them: stages by their folders, and labs of others by netlab's names."""
    found = {other.number: other.owner for other in survey.others}
    own = before.name if before is not None else ""
    for name in _names(look):
        digits = name.removeprefix("ml-").removeprefix("nl_mgmt_")
        if digits.isdigit() and name not in (digits, own):
            found.setdefault(int(digits), f"the lab {name}")
    return found


def _names(look: HostLook) -> Iterable[str]:
    yield from (item.labels.get(LAB_LABEL, "") for item in look.containers)
    yield from (item.name for item in look.networks)


def _refuse_name(name: str, survey: Survey, look: HostLook, before: Place | None) -> None:
    """Bridges and interfaces are named by the beginning of a lab's name."""
    own = before.name if before is not None else ""
    others = {item.labels.get(LAB_LABEL, ""): "a lab of somebody else's" for item in look.containers}
    others |= {other.name: f"the lab of {other.owner}" for other in survey.others}
    for other, whose in others.items():
        if other and other != own and other[:_BEGINNING] == name[:_BEGINNING]:
            raise SpecError(
                f"the lab's name {name} begins like {other}, {whose}, on the same host",
                hint=f"choose a `name` whose first {_BEGINNING} characters no other lab has, or leave it out",
            )
