"""The check-up: is everything here that Skyspan, and a composition, needs?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from skyspan.app.contexts import tool_finder
from skyspan.app.folders import make_private
from skyspan.app.session import Session
from skyspan.contracts.transport import Command, Effect
from skyspan.model.error import SkyspanError
from skyspan.transports.local import LocalTransport

if TYPE_CHECKING:
    from skyspan.contracts.upkeep import Flaw

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `verdict` is ok, warning or error."""

    what: str
    verdict: str
    found: str
    hint: str = ""

    def document(self) -> dict[str, str]:
        """As published."""
        return {"what": self.what, "verdict": self.verdict, "found": self.found, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class _Tool:
    """An external tool: its names in order of preference, how to ask its version, who needs it, how to get it."""

    names: tuple[str, ...]
    version: tuple[str, ...]
    needed_by: tuple[str, ...]
    get: str


_TOOLS = (
    _Tool(("tofu", "terraform"), ("version",), ("terraform",), "make tools, or OpenTofu's own packages"),
    _Tool(("ansible-playbook",), ("--version",), ("ansible",), "apt-get install ansible"),
    _Tool(("ip",), ("-V",), ("rehearsal",), "apt-get install iproute2"),
    _Tool(("nft",), ("--version",), ("rehearsal",), "apt-get install nftables"),
    _Tool(("sshd", "/usr/sbin/sshd"), ("-V",), ("rehearsal",), "apt-get install openssh-server"),
    _Tool(("wg",), ("--version",), ("rehearsal",), "apt-get install wireguard-tools"),
    _Tool(("wireguard-go",), ("--version",), ("rehearsal",), "apt-get install wireguard-go"),
    _Tool(
        ("swanctl", "/usr/sbin/swanctl"), ("--version",), ("rehearsal of a VPN",), "apt-get install strongswan-swanctl"
    ),
    _Tool(("bird", "/usr/sbin/bird"), ("--version",), ("rehearsal of a VPN",), "apt-get install bird2"),
    _Tool(("headscale",), ("version",), ("rehearsal of a tailnet",), "tools/build tailnet, in a checkout"),
    _Tool(("tailscaled",), ("--version",), ("rehearsal of a tailnet",), "tools/build tailnet, in a checkout"),
    _Tool(("dockerd", "/usr/sbin/dockerd"), ("--version",), ("rehearsal of Docker",), "apt-get install docker.io"),
)

_PLACES_SHOWN = 3
_VERSION = re.compile(r"\d+\.\d+")

_PYTHON: Mapping[str, tuple[int, int]] = MappingProxyType({"least": (3, 11)})


async def examine(session: Session, uses: frozenset[str] | None) -> tuple[Finding, ...]:
    """Look at everything; `uses` limits the tools to those that these providers need."""
    findings = [_python(), _home(session), await _store(session), _keys(session), *await _integrity(session)]
    finder = tool_finder(session)
    here = LocalTransport(session.settings.child_env)
    for tool in _TOOLS:
        if uses is not None and not uses & set(tool.needed_by):
            continue
        path = finder.find(*tool.names)
        if path is None:
            needed = ", ".join(tool.needed_by)
            findings.append(
                Finding(tool.names[0], WARNING if uses is None else ERROR, f"missing; needed by {needed}", tool.get)
            )
            continue
        said = await here.query(Command((str(path), *tool.version), stdin=b"", timeout_s=10.0, effect=Effect.READ))
        version = _version_line(said.text().strip() or said.last_words())
        findings.append(Finding(tool.names[0], OK, f"{version} ({path})"))
    await here.close()
    return tuple(findings)


def _version_line(said: str) -> str:
    """The line that holds a version number: some tools warn of their configuration first."""
    return next((line for line in said.splitlines() if _VERSION.search(line)), "there")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] >= _PYTHON["least"]
    return Finding("python", OK if good else ERROR, version, "" if good else "Skyspan needs Python 3.11 or newer")


def _home(session: Session) -> Finding:
    home = session.settings.home
    try:
        make_private(home)
        probe = home / ".doctor"
        probe.write_text("ok")
        probe.unlink()
    except (OSError, SkyspanError) as error:
        return Finding(
            "home", ERROR, f"{home} cannot be written: {error}", "name another one with --home or SKYSPAN_HOME"
        )
    mode = home.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding("home", WARNING, f"{home} can be read by others (mode {mode:o})", f"chmod 700 {home}")
    return Finding("home", OK, str(home))


async def _store(session: Session) -> Finding:
    place = session.settings.store.split("@")[-1]
    try:
        deployments = await session.store.deployments(session.settings.workspace)
    except SkyspanError as error:
        return Finding("store", ERROR, f"{place}: {error.summary}", error.hint)
    return Finding("store", OK, f"{place}, {len(deployments)} deployments in workspace {session.settings.workspace}")


async def _integrity(session: Session) -> list[Finding]:
    """What is stored, as it is on the disk: flaws one by one, or one line that says how much was looked at."""
    from skyspan.app.integrity import key_flaws, survey

    seen = await survey(session)
    flaws = [*seen.flaws, *key_flaws(session)]
    if flaws:
        return list(grouped(flaws))
    return [Finding("integrity", OK, f"{seen.runs} runs, {seen.events} events, {seen.sealed} sealed values are whole")]


def grouped(flaws: Sequence[Flaw]) -> Iterator[Finding]:
    """A finding for each kind of flaw: a wrong key alone makes every value one that cannot be opened."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for flaw in flaws:
        places.setdefault((flaw.what, flaw.found, flaw.hint), []).append(flaw.where)
    for (what, found, hint), where in places.items():
        more = f" and {len(where) - _PLACES_SHOWN} more" if len(where) > _PLACES_SHOWN else ""
        yield Finding(what, ERROR, f"{', '.join(where[:_PLACES_SHOWN])}{more}: {found}", hint)


def _keys(session: Session) -> Finding:
    workspace = session.settings.workspace
    try:
        sealed = session.sealer.seal(workspace, "doctor", b"ok")
        session.sealer.open(workspace, "doctor", sealed)
    except SkyspanError as error:
        return Finding("keys", ERROR, error.summary, error.hint)
    return Finding("keys", OK, "values can be sealed and opened")
