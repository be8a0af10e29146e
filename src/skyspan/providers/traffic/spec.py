"""The settings of a traffic stage, and what can be said against them without looking anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.address import NAME_PATTERN
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret

MOST_FLOWS = 100
"""More than that belong into several stages."""

MOST_REQUESTS = 10_000
"""In one measurement or window: each leaves a line."""

_UNITS: Mapping[str, float] = MappingProxyType({"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12})
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:bit/s|bps|bit)?", re.IGNORECASE)
_PORTS = re.compile(r"(\d+)-(\d+)")
_OID = re.compile(r"\.?\d+(\.\d+)+")
_ADDRESS = re.compile(r"[0-9A-Za-z][0-9A-Za-z.:_-]*(%[0-9A-Za-z._-]+)?|::[0-9A-Fa-f:.]*")


def bits_per_second(value: Any) -> float:
    """`10M`, `1.5G`, `500k` or a number, in bit/s; raises ValueError in words."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        msg = f"{value!r} is no rate: write bits per second as 500k, 10M or 1.5G"
        raise ValueError(msg)
    return float(found[1]) * _UNITS[found[2].lower()]


def port_range(text: str) -> tuple[int, int]:
    """First and last port of `47800-47899`; raises ValueError in words."""
    found = _PORTS.fullmatch(text)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < first <= last < 65536:
        msg = f"{text!r} is no range of ports: write the first and the last one, as in 47800-47899"
        raise ValueError(msg)
    return first, last


def _a_port_range(text: str) -> str:
    port_range(text)
    return text


def _an_address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        msg = f"{text!r} is neither an IP address nor a name"
        raise ValueError(msg)
    return text


def _an_oid(text: str) -> str:
    if not _OID.fullmatch(text):
        msg = f"{text!r} is no object identifier in numbers, as 1.3.6.1.2.1.1.3.0 is one"
        raise ValueError(msg)
    return text.lstrip(".")


def _community(value: Any) -> Any:
    """In clear too: most labs' is `public`."""
    return Secret(value) if isinstance(value, str) else value


BitRate: TypeAlias = Annotated[
    float,
    BeforeValidator(bits_per_second),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["10M", "1.5G"]}]}
    ),
]
Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN)]
Address: TypeAlias = Annotated[str, AfterValidator(_an_address)]
Container: TypeAlias = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_.-]*$")]
Ports: TypeAlias = Annotated[str, AfterValidator(_a_port_range)]
Oid: TypeAlias = Annotated[str, AfterValidator(_an_oid)]

Community: TypeAlias = Annotated[Secret, BeforeValidator(_community)]

Kind: TypeAlias = Literal["iperf3", "tcp", "udp", "http", "snmp", "ping"]

_OPTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "iperf3": frozenset({"protocol", "rate", "parallel", "reverse", "size", "port", "existing"}),
        "tcp": frozenset({"per_second", "size", "port", "existing", "timeout"}),
        "udp": frozenset({"per_second", "size", "port", "existing", "timeout"}),
        "http": frozenset({"per_second", "size", "port", "existing", "timeout", "tls", "verify", "path"}),
        "snmp": frozenset({"per_second", "port", "timeout", "community", "version", "oid", "walk"}),
        "ping": frozenset({"per_second", "size", "timeout"}),
    }
)
"""Which of the options that are not for all kinds each kind takes."""

_FIGURES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "iperf3/tcp": frozenset({"min_throughput", "max_retransmits", "max_latency"}),
        "iperf3/udp": frozenset({"min_throughput", "max_loss", "max_jitter"}),
        "request": frozenset({"max_loss", "max_jitter", "max_latency", "max_p95"}),
    }
)


class End(Spec):
    """Where traffic begins or ends: a host, a container on a host, or an address of somebody else's."""

    host: str | None = None
    """A host of the composition; without it, this machine."""
    container: Container | None = None
    """A container on that host, by its name: `"${{ stages.lab.outputs.nodes.r1.container }}"` for a lab node. What
    makes the traffic runs inside it, by `docker exec`, so it must have the tool."""
    address: Address | None = None
    """Where the traffic goes to. Default: the host's address, or the container's own first one; give it for what lies
    inside a link or a lab. Alone, it is a target on which nothing is started. At `from`: where it comes from, for an
    end with several addresses."""

    @property
    def bare(self) -> bool:
        """Whether nothing can be started there."""
        return self.host is None and self.container is None

    def words(self) -> str:
        """The end for people."""
        if self.bare:
            return self.address or "here"
        return f"{self.host or 'here'}/{self.container}" if self.container else str(self.host)


class Thresholds(Spec):
    """What a flow must hold; what it does not hold fails the stage, or `skyspan check`."""

    min_throughput: BitRate | None = None
    """Least bits per second that arrive."""
    max_loss: float | None = Field(default=None, ge=0, le=1)
    """Most that may be lost, of 1: `0.01` is one in a hundred. A request without a good answer counts as lost."""
    max_jitter: Seconds | None = None
    """Most by which the delay may vary from one packet or answer to the next, on average."""
    max_latency: Seconds | None = None
    """Most time to an answer, on average. For iperf3 over TCP, the round trip that the sender's kernel saw."""
    max_p95: Seconds | None = None
    """Most time to an answer, for 95 of 100."""
    max_retransmits: int | None = Field(default=None, ge=0)
    """Most TCP segments sent again."""


class Flow(Spec):
    """Traffic of one kind from one end to another."""

    kind: Kind
    """`iperf3`: throughput over TCP or UDP. `tcp`: connections, each with a request and its answer. `udp`: datagrams
    that are sent back. `http`: requests. `snmp`: what an agent answers. `ping`: ICMP."""
    from_: End = Field(default_factory=End, alias="from")
    """Where it begins; default: this machine."""
    to: End
    """Where it goes."""
    mode: Literal["measured", "background"] = "measured"
    """`measured`: once, while the stage is applied. `background`: on and on, also when Skyspan has ended, measured in
    windows of which the last one is looked at by `skyspan check`."""
    duration: Seconds = 5.0
    """How long it is measured; in the background, one window. Whole seconds for iperf3."""
    pause: Seconds | None = None
    """Between two windows in the background; default: none."""
    dscp: int | None = Field(default=None, ge=0, le=63)
    """Its differentiated services code point, such as 46 for expedited forwarding."""
    thresholds: Thresholds = Field(default_factory=Thresholds)
    """What it must hold. Without any, something must pass at all."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """For iperf3."""
    rate: BitRate | None = None
    """For iperf3: bits per second that are sent, `10M`. Default: as many as pass over TCP, 1M over UDP."""
    parallel: int = Field(default=1, ge=1, le=64)
    """For iperf3: how many streams at once; `rate` is that of all of them."""
    reverse: bool = False
    """For iperf3: the data goes from `to` to `from`, as behind a NAT."""
    per_second: float = Field(default=10.0, gt=0, le=1000)
    """Requests per second, for all kinds but iperf3."""
    size: int | None = Field(default=None, ge=16, le=65000)
    """Bytes: of a datagram, of a request and its answer, of the page that is served. Default: 64; 1200 for iperf3 over
    UDP; iperf3's own over TCP."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The port at `to`. Default: one of `ports` that is free there; 80, 443 or 161 for a service that is there."""
    existing: bool = False
    """The service is there already and nothing is started at `to`: an iperf3 server, a TCP service (connections
    only), something that sends datagrams back, a web server. Always so for a bare address."""
    timeout: Seconds = 1.0
    """How long an answer is waited for, for all kinds but iperf3."""
    tls: bool = False
    """For http: speak https. Only with a service that is there."""
    verify: bool = True
    """For https: whether the server's certificate must be trusted where the flow begins."""
    path: str = Field(default="/", pattern=r"^/[!-~]*$")
    """For http: what is asked for."""
    community: Community | None = None
    """For snmp; default: `public`."""
    version: Literal["1", "2c"] = "2c"
    """For snmp."""
    oid: Oid = "1.3.6.1.2.1.1.3.0"
    """For snmp: the object that is asked for, in numbers; default: sysUpTime."""
    walk: bool = False
    """For snmp: go through everything below `oid`, again and again."""

    @property
    def background(self) -> bool:
        """Whether it goes on."""
        return self.mode == "background"

    @property
    def served(self) -> bool:
        """Whether what answers is started by this stage."""
        return self.kind not in {"snmp", "ping"} and not self.existing and not self.to.bare

    @property
    def figures(self) -> frozenset[str]:
        """The thresholds that mean something for it."""
        found = _FIGURES[f"iperf3/{self.protocol}" if self.kind == "iperf3" else "request"]
        # Its kernel sees the round trips of what it sends itself.
        return found - {"max_latency"} if self.reverse else found

    @model_validator(mode="after")
    def _fits_together(self) -> Flow:
        problems = [*self._misplaced(), *self._impossible()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _misplaced(self) -> Iterator[str]:
        every = frozenset().union(*_OPTIONS.values())
        for option in sorted((self.model_fields_set & every) - _OPTIONS[self.kind]):
            yield f"{option!r} has no meaning for {self.kind}"
        for name in sorted(self.thresholds.model_fields_set - self.figures):
            kind = f"{self.kind} over {self.protocol}" if self.kind == "iperf3" else self.kind
            yield f"{kind} has no figure for {name!r}; there are {', '.join(sorted(self.figures))}"
        if self.pause is not None and not self.background:
            yield "'pause' is for flows in the background"

    def _impossible(self) -> Iterator[str]:
        if self.to.bare and self.to.address is None:
            yield "`to` needs a host, a container or an address"
        if self.kind in {"iperf3", "tcp", "udp"} and not self.served and self.port is None:
            yield "a service that is there already needs its `port`"
        if self.tls and self.served:
            yield "`tls` is only for a service that is there: say `existing: true`"
        if self.kind != "iperf3" and self.per_second * self.duration > MOST_REQUESTS:
            yield f"that makes more than {MOST_REQUESTS} requests in one measurement: lower `per_second` or `duration`"


class TrafficSpec(Spec):
    """Traffic between hosts, containers and lab nodes, with what it must hold."""

    flows: dict[Name, Flow] = Field(min_length=1, max_length=MOST_FLOWS)
    """The flows, by names of your own."""
    ports: Ports = "47800-47899"
    """Where the stage listens: on one of them that is free, for each flow. What lies between the ends must let them
    through."""
    together: bool = False
    """Measure all flows at once; default: one after the other, so that they do not disturb each other."""
    ready_within: Seconds = 20.0
    """How long a flow in the background may take, beyond one window, to hold its thresholds."""

    @model_validator(mode="after")
    def _ports_differ(self) -> TrafficSpec:
        taken: dict[tuple[str | None, str | None, int], str] = {}
        for name, flow in self.flows.items():
            if flow.served and flow.port is not None:
                place = (flow.to.host, flow.to.container, flow.port)
                if place in taken:
                    msg = f"{taken[place]} and {name} both listen on port {flow.port} of {flow.to.words()}"
                    raise ValueError(msg)
                taken[place] = name
        return self
