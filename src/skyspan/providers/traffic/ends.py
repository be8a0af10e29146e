"""Which hosts and containers the flows need, and what each end comes to once they have been looked at: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import CredentialsError, NotReadyError, SpecError, StageError, ToolMissingError
from skyspan.providers.traffic.commands import Inside, Where
from skyspan.providers.traffic.orders import tool_of
from skyspan.providers.traffic.parse import Tool
from skyspan.providers.traffic.spec import End, Flow, TrafficSpec
from skyspan.providers.traffic.survey import ABSENT, REFUSED, ContainerLook, Look

_HOST_TOOLS = (("setsid", "util-linux"), ("flock", "util-linux"), ("timeout", "coreutils"))


@dataclass(frozen=True, slots=True)
class Route:
    """One flow with its ends as they are: where to start what, and the address that the traffic goes to."""

    name: str
    flow: Flow
    tool: Tool
    source: Where
    source_inside: Inside
    target: Where
    target_inside: Inside
    address: str

    def words(self) -> str:
        """The flow for people."""
        return f"{self.name} ({self.flow.kind} {self.flow.from_.words()} → {self.flow.to.words()})"


def where(host: str | None, address: StageAddress) -> Where:
    """What the stage is called on a host: the number differs from those of other stages and hosts."""
    number = hashlib.sha256(f"{address}\n{host or ''}".encode()).hexdigest()[:12]
    return Where(host, number, str(address))


def containers(spec: TrafficSpec) -> Mapping[str | None, tuple[str, ...]]:
    """By host that is needed, the containers on it; refusals come later."""
    found: dict[str | None, list[str]] = {}
    for end in _ends(spec):
        listed = found.setdefault(end.host, [])
        if end.container is not None and end.container not in listed:
            listed.append(end.container)
    return {host: tuple(listed) for host, listed in found.items()}


def _ends(spec: TrafficSpec) -> Iterator[End]:
    for flow in spec.flows.values():
        yield flow.from_
        if not flow.to.bare and (flow.served or flow.to.container is not None):
            yield flow.to


def refuse_unknown_hosts(spec: TrafficSpec, hosts: Mapping[str, Host]) -> None:
    """Raises SpecError for a host that the composition does not have."""
    for name, flow in spec.flows.items():
        for end in (flow.from_, flow.to):
            if end.host is not None and end.host not in hosts:
                raise SpecError(
                    f"flow {name}: the composition has no host {end.host!r}",
                    hint=f"hosts: {', '.join(sorted(hosts)) or 'none'}",
                )


def routed(
    name: str, flow: Flow, looks: Mapping[str | None, Look], hosts: Mapping[str, Host], stage: StageAddress
) -> Route:
    """The flow with its ends, before anything is touched. Raises StageError for what is missing at one of them."""
    try:
        here = _tools(flow.from_, looks)
        there = _tools(flow.to, looks) if flow.served else frozenset()
        tool = tool_of(flow, here, there)
        for end in (flow.from_, flow.to) if flow.served else (flow.from_,):
            if flow.background or end is flow.to:
                _refuse_bare_host(end, looks[end.host])
        address = _address(flow.to, looks, hosts)
    except StageError as error:
        summary = f"flow {name}: {error.summary}"
        raise type(error)(summary, detail=error.detail, hint=error.hint, retry=error.retry) from error
    return Route(
        name=name,
        flow=flow,
        tool=tool,
        source=where(flow.from_.host, stage),
        source_inside=_inside(flow.from_, looks),
        target=where(flow.to.host, stage),
        target_inside=_inside(flow.to, looks),
        address=address,
    )


def _tools(end: End, looks: Mapping[str | None, Look]) -> frozenset[str]:
    look = looks[end.host]
    return look.tools if end.container is None else _container(end, look).tools


def _container(end: End, look: Look) -> ContainerLook:
    """The container; raises StageError when nothing can run in it."""
    at = end.host or "this machine"
    if look.docker == ABSENT:
        raise ToolMissingError(f"there is no docker on {at}", hint=f"install the package docker.io on {at}")
    if look.docker.startswith(REFUSED):
        raise CredentialsError(
            f"Docker on {at} does not answer this login",
            detail=look.docker.removeprefix(REFUSED).strip(),
            hint=f"is its daemon running, and is the login root, in the group docker, or allowed to sudo on {at}?",
        )
    assert end.container is not None, "asked for containers only"
    found = look.containers.get(end.container, ContainerLook("missing"))
    if found.state != "running":
        raise NotReadyError(
            f"the container {end.container} on {at} is {found.state}",
            hint=f"`docker ps -a` on {at} lists them; does this stage come after the one that starts it?",
        )
    if found.trouble:
        raise ToolMissingError(
            f"nothing can be run in the container {end.container} on {at}",
            detail=found.trouble,
            hint="its image needs a shell and the tools that make the traffic",
        )
    return found


def _refuse_bare_host(end: End, look: Look) -> None:
    for tool, package in _HOST_TOOLS:
        if tool not in look.tools:
            at = end.host or "this machine"
            raise ToolMissingError(f"there is no {tool} on {at}", hint=f"install the package {package} on {at}")


def _inside(end: End, looks: Mapping[str | None, Look]) -> Inside:
    return Inside() if end.container is None else Inside(looks[end.host].docker, end.container)


def _address(end: End, looks: Mapping[str | None, Look], hosts: Mapping[str, Host]) -> str:
    if end.address is not None:
        return end.address
    if end.container is not None:
        found = _container(end, looks[end.host]).addresses
        if not found:
            raise SpecError(
                f"Docker gives the container {end.container} no address", hint="give `to` the `address` it has"
            )
        return found[0]
    assert end.host is not None, "the spec demands one of the three"
    return hosts[end.host].address
