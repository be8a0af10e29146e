"""What a fault is, and what is known of a kind of link: values, and the schedule that chance makes of a table."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tests.chaos.links.stand_ins import StandIns

Mends: TypeAlias = Callable[[], None]
Breaks: TypeAlias = Callable[[StandIns, random.Random], Mends | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`breaks` makes it and returns what mends it, if only the world can: then repair is timed from the mending.

    `bound_s` is within how many seconds traffic passes again. `causes` are those that the diagnosis may name. One that
    `heals` may be over before anybody notices; one that is `quiet` is none of the link's, which is left alone. When it
    is `evaded`, traffic passes again before it is mended. When others are to be `spared`, something of the link still
    carries, and no repair may be taken that would end it."""

    name: str
    breaks: Breaks
    bound_s: float
    causes: tuple[str, ...] = ()
    heals: bool = False
    quiet: bool = False
    evaded: bool = False
    spared: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """Who asks whom, to measure a link: `by` a `ping`, by an answered connection (`tcp`), or by one `socks` leads on.

    `target` is a stand-in's name or an address, with its port for connections; `proxy` the one that leads on.
    """

    source: str
    target: str
    by: str = "ping"
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A link of an example, its gateways, and the ways that measure it.

    `compose` makes another composition than the example's; `changes` replace texts of that; `only` is the stage that is
    needed. `address` is what says a stand-in's address on the link, for targets that are named. Silence of `gap_s` is
    an outage.
    """

    example: str
    gateways: tuple[str, ...]
    ways: tuple[Way, ...]
    faults: tuple[Fault, ...]
    changes: tuple[tuple[str, str], ...] = ()
    compose: Callable[[StandIns], str] | None = None
    only: str = ""
    address: str = ""
    gap_s: float = 0.3


def schedule(kind: str, table: tuple[Fault, ...], seed: int, count: int, only: str = "") -> list[Fault]:
    """Every fault once, in the order of the table, then as chance has it (pure); `only` those with that name."""
    faults = [fault for fault in table if only in fault.name]
    chance = random.Random(f"{kind} {seed}")
    return [*faults, *(chance.choice(faults) for _ in range(count))][:count]
