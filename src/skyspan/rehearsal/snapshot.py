"""What is there in a world: a picture of every namespace, and what differs between two (the proof of a destroy)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skyspan.model.error import ToolFailedError
from skyspan.rehearsal.hosts.machine import ABSENT, Machine
from skyspan.rehearsal.hosts.processes import processes
from skyspan.rehearsal.services import dockerhost
from skyspan.rehearsal.spec import Docker, Inventory, services_of
from skyspan.rehearsal.underlay.topology import CONTROL
from skyspan.rehearsal.world import World

IGNORED_FOLDERS = (
    *("tmp", "run/lock", "var/tmp", "var/log", "var/cache", "root/.ansible", "root/.cache"),
    *("var/lib/tailscale", "run/docker", "run/containerd"),
)
"""Where every machine leaves logs and scratch files; nobody expects a deployment to clean there.

Nor where a daemon that was there before keeps its own: who is a member is asked of the tailnet's server, what there is
of containers of Docker.
"""

_LOOK = """echo @links; ip -j addr
echo @routes; ip -j route show table all
echo @routes; ip -j -6 route show table all
echo @rules; ip -j rule
echo @nftables; nft -s list ruleset"""

_IPTABLES_TABLE = re.compile(r"table ip6? (filter|nat|mangle|raw|security)")
_IPTABLES_CHAIN = re.compile(
    _IPTABLES_TABLE.pattern + r" / chain (PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING): \['type [^']* policy accept;'\]"
)
"""A chain of iptables with the one line that each has, by which it lets everything pass."""

_REMOVED = "removed file"


def differences(before: Mapping[str, frozenset[str]], after: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """What is there only after, and what is gone since before, as lines that name the place."""
    found = []
    for place in sorted({*before, *after}):
        old, new = before.get(place, frozenset()), after.get(place, frozenset())
        found += [f"{place}: left behind: {item}" for item in sorted(new - old)]
        found += [f"{place}: missing: {item}" for item in sorted(old - new)]
    return tuple(found)


async def take(world: World) -> Mapping[str, frozenset[str]]:
    """The picture of every namespace of `world`, and of the cloud's account.

    Raises ToolFailedError when one cannot be looked at: a proof with a hole is none.
    """
    places = [CONTROL, *world.topology.helpers, *world.topology.machines]
    networks = await asyncio.gather(*(_network(world, place) for place in places))
    found = {place: set(items) for place, items in zip(places, networks, strict=True)}
    for name, machine in world.machines.items():
        found[name].update(await asyncio.to_thread(_inside, machine))
    account = await asyncio.to_thread(world.aws.leftovers) if world.aws else ()
    members = frozenset(f"member {name}" for name in await world.members())
    for name, host in world.rehearsal.hosts.items():
        if services_of(host, Docker):
            found[name].update(await _docker(world, name))
        for service in services_of(host, Inventory):
            found[name].update(await _rows(world, name, service.port))
    return {
        **{place: frozenset(items) for place, items in found.items()},
        "AWS": frozenset(account),
        "tailnet": members,
    }


def _inside(machine: Machine) -> list[str]:
    """What runs on a machine and what was written there. Blocks: for a thread."""
    return [*processes(machine.pid), *files(machine.changes)]


async def _network(world: World, place: str) -> Iterable[str]:
    completed = await world.on(place, "sh", "-euc", _LOOK)
    if not completed.ok:
        raise ToolFailedError(f"cannot look at {place}", detail=completed.last_words())
    return network(completed.text())


async def _docker(world: World, place: str) -> Iterable[str]:
    completed = await world.on(place, "sh", "-euc", dockerhost.LIST)
    if not completed.ok:
        raise ToolFailedError(f"cannot look at what Docker has on {place}", detail=completed.last_words())
    return completed.text().splitlines()


async def _rows(world: World, place: str, port: int) -> Iterable[str]:
    completed = await world.on(place, "curl", "-sS", "-f", "-m", "5", f"http://127.0.0.1:{port}/")
    if not completed.ok:
        raise ToolFailedError(f"cannot look at the inventory on {place}", detail=completed.last_words())
    tables: Mapping[str, list[Mapping[str, Any]]] = json.loads(completed.text())
    return [f"row {table}/{row['id']} {row.get('name', '')}".rstrip() for table, rows in tables.items() for row in rows]


def network(text: str) -> Iterator[str]:
    """The lines for what `_LOOK` printed: links, addresses, routes, rules, nftables.

    What the kernel makes by itself (link-local addresses, routes of addresses) is left out.
    """
    for section in re.split(r"^@", text, flags=re.MULTILINE)[1:]:
        name, _, said = section.partition("\n")
        if name == "nftables":
            yield from _ruleset(said.splitlines())
            continue
        describe = {"links": _links, "routes": _routes, "rules": _rule}[name]
        for item in json.loads(said or "[]"):
            yield from describe(item)


def _links(item: Mapping[str, Any]) -> Iterator[str]:
    name = item["ifname"]
    yield f"link {name} ({'up' if 'UP' in item['flags'] else 'down'}, MTU {item['mtu']})"
    for address in item.get("addr_info", []):
        if address.get("scope") != "link":
            yield f"address {address['local']}/{address['prefixlen']} on {name}"


def _routes(item: Mapping[str, Any]) -> Iterator[str]:
    if item.get("protocol") == "kernel":
        return
    words = ["route", item.get("type", ""), item["dst"]]
    words += [f"{key} {item[key]}" for key in ("gateway", "dev", "table", "protocol", "metric") if key in item]
    yield " ".join(word for word in words if word)


def _rule(item: Mapping[str, Any]) -> Iterator[str]:
    source = item.get("src", "all") + (f"/{item['srclen']}" if "srclen" in item else "")
    yield f"rule {item.get('priority')} from {source} lookup {item.get('table')}"


def _ruleset(lines: list[str]) -> Iterator[str]:
    """Every line with the table and chain it stands in, so that each is a thing of its own.

    Left out is what `iptables` makes whenever it is asked for anything, and nobody takes away: chains of its own names
    without a rule, and tables of its own with nothing else.
    """
    around: list[str] = []
    tables: dict[str, dict[str, list[str]]] = {}
    for line in (line.strip() for line in lines):
        if line.endswith("{"):
            around.append(line.removesuffix("{").strip())
            tables.setdefault(around[0], {}).setdefault(" / ".join(around), [])
        elif line == "}":
            around.pop()
        elif line and not line.startswith("#"):
            tables[around[0]][" / ".join(around)].append(line)
    for table, parts in tables.items():
        told = {part: said for part, said in parts.items() if not _IPTABLES_CHAIN.fullmatch(f"{part}: {said}")}
        if _IPTABLES_TABLE.fullmatch(table) and set(told) == {table} and not told[table]:
            continue
        for part, said in told.items():
            yield f"nftables {part}"
            yield from (f"nftables {part}: {line}" for line in said)


def files(changes: Path, below: Path = Path("/")) -> Iterator[str]:
    """What differs from the files of this machine (`below`), in the upper folder of an overlay."""
    for folder, folders, names in os.walk(changes):
        here = Path(folder).relative_to(changes)
        folders[:] = [name for name in folders if str(here / name) not in IGNORED_FOLDERS]
        for name in folders:
            if not os.path.lexists(below / here / name):
                yield f"folder /{here / name}"
        for name in names:
            content = _content(Path(folder) / name)
            if (str(here / name), content) != (ABSENT, _REMOVED):
                yield f"{content} /{here / name}"


def _content(path: Path) -> str:
    """What a file is, so that a changed one is another thing."""
    status = path.lstat()
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return _REMOVED
    if stat.S_ISLNK(status.st_mode):
        return f"link to {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return "socket or device"
    return f"file {hashlib.sha256(path.read_bytes()).hexdigest()[:12]} {stat.filemode(status.st_mode)}"
