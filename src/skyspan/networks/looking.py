"""What a look at a host prints, read into values: its sections, and what `ip -j` says of addresses and routes; pure."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from ipaddress import ip_interface, ip_network
from typing import Any, TypeVar

from skyspan.networks.peers import Route

T = TypeVar("T")


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all at once and wait for all, so that nothing goes on unseen; then raise the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def digest_of(text: str) -> str:
    """The digest as `sha256sum` prints it."""
    return hashlib.sha256(text.encode()).hexdigest()


def sections(text: str) -> Mapping[str, str]:
    """The parts of a look by name: each begins with a line `@name`."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            lines = found.setdefault(line[1:], [])
        else:
            lines.append(line)
    return {name: "\n".join(content) for name, content in found.items()}


def pairs(text: str) -> list[tuple[str, str]]:
    """The first word of each line, and the rest of it."""
    return [(name, value) for name, _, value in (line.partition(" ") for line in text.splitlines() if line)]


def objects(text: str) -> Sequence[Mapping[str, Any]]:
    """What `ip -j` prints: nothing, or a list in which a filter leaves empty objects."""
    found: list[Mapping[str, Any]] = json.loads(text) if text.strip() else []
    return [item for item in found if item]


def addresses(items: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """By device, its addresses with the length of their networks; those of the link alone are left out."""
    return {
        item["ifname"]: tuple(
            str(ip_interface(f"{info['local']}/{info['prefixlen']}"))
            for info in item.get("addr_info", ())
            if "local" in info and info.get("scope") != "link"
        )
        for item in items
    }


def route(item: Mapping[str, Any], everything: str) -> Route:
    """A route of `ip -j route show`; `everything` is what `default` stands for in its family."""
    destination = everything if item["dst"] == "default" else item["dst"]
    protocol = str(item.get("protocol", ""))
    return Route(
        prefix=ip_network(destination, strict=False),
        device=item.get("dev", ""),
        protocol=protocol,
        connected=item.get("scope") == "link" or (protocol == "kernel" and "gateway" not in item),
        source=item.get("prefsrc", ""),
    )


def routes(text4: str, text6: str) -> tuple[Route, ...]:
    """All routes of both families."""
    both = ((text4, "0.0.0.0/0"), (text6, "::/0"))
    return tuple(route(item, everything) for text, everything in both for item in objects(text))
