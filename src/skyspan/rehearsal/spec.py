"""What a `rehearsal:` section (or `rehearsal.yaml`) may say: the stand-ins of a composition's world."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from skyspan.model.address import NAME_PATTERN
from skyspan.model.composition import Model, Seconds
from skyspan.model.value import Value

# Names become namespace and bridge names, which the kernel limits to 15 bytes including our prefix.
StandInName: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN, max_length=13)]

IMAGE_PATTERN = (
    r"^[a-z0-9]+([._/-]+[a-z0-9]+)*(:[0-9]+(/[a-z0-9]+([._-]+[a-z0-9]+)*)+)?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"
)
"""A reference to an image by name and tag (distribution's grammar of references, without a digest)."""

RESERVED_NAMES = frozenset({"control", "router", "switch", "aws"})
"""Namespaces that every world has."""


def _text(value: object) -> object:
    """Texts only: the parser of addresses would also take a number and mean something else by it."""
    if not isinstance(value, str):
        msg = "expected a text such as 203.0.113.0/24"
        raise ValueError(msg)
    return value


Prefix: TypeAlias = Annotated[IPv4Network, BeforeValidator(_text), WithJsonSchema({"type": "string", "format": "cidr"})]
Address: TypeAlias = Annotated[
    IPv4Address, BeforeValidator(_text), WithJsonSchema({"type": "string", "format": "ipv4"})
]
AddressWithLength: TypeAlias = Annotated[
    IPv4Interface, BeforeValidator(_text), WithJsonSchema({"type": "string", "examples": ["192.168.77.1/24"]})
]


class Site(Model):
    """An underlay network behind the world's router, such as a provider's edge or an office line."""

    prefix: Prefix
    """Its addresses; the router has the first one."""


class Route(Model):
    """A route that a stand-in has from the start."""

    to: Prefix
    """Destination; `0.0.0.0/0` is the default route."""
    via: Address
    """Next hop."""


class Recorder(Model):
    """Listens from the start: answers every HTTP request with 200 and keeps what it was sent (`GET /requests`)."""

    kind: Literal["recorder"]
    port: int = Field(default=8080, ge=1, le=65535)
    """TCP port, on all addresses."""


class Inventory(Model):
    """Listens from the start: a REST API with tables of rows, made as NetBox's and empty. What a deployment leaves in
    it is found by the proof. `GET /` tells everything."""

    kind: Literal["inventory"]
    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port, on all addresses."""


class Headscale(Model):
    """A control server of a tailnet: a real Headscale, with its relay, and a key that lets stand-ins join."""

    kind: Literal["headscale"]
    port: int = Field(default=8080, ge=1, le=65535)
    """TCP port of `http://ADDRESS:PORT`, its address as a `login_server`. The address should be a private one: a client
    may ask a server elsewhere by HTTPS (tailscale, control/ts2021)."""
    domain: str = Field(default="tail.skyspan.test", pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")
    """Domain of the tailnet's names."""
    tags: tuple[Annotated[str, Field(pattern=r"^tag:[a-z][a-z0-9-]*$")], ...] = ()
    """Tags that the key gives to whoever joins with it."""
    auth_key_env: str = Field(default="TS_AUTHKEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that has the key inside the world."""


class Tailscaled(Model):
    """Tailscale as a package would leave it: the commands, and a daemon that is a member of nothing yet."""

    kind: Literal["tailscaled"]


class Docker(Model):
    """Docker as a package would leave it: a real daemon of the stand-in's own with its socket, network and firewall
    chains, and the commands; `containerlab` and Compose too, where they are on PATH."""

    kind: Literal["docker"]
    images: dict[Annotated[str, Field(pattern=IMAGE_PATTERN)], str] = Field(default_factory=dict)
    """Images that it has from the start, by reference: `node` (a small Debian with FRR, SSH, SNMP and iperf3, which
    `tools/image` makes), `busybox`, or the path of a tar beside the composition: what `docker save` wrote, or a root
    file system. Nothing can be pulled: there is no registry in a world."""
    settings: dict[str, Value] = Field(default_factory=dict)
    """More of its `daemon.json`."""


Service: TypeAlias = Annotated[Recorder | Headscale | Tailscaled | Docker | Inventory, Field(discriminator="kind")]
"""Something that runs on a stand-in from the start, beside sshd."""


Served = TypeVar("Served", Recorder, Headscale, Tailscaled, Docker, Inventory)


class StandsFor(Model):
    """What of the cloud the stand-in is while it exists: an instance, or the cloud's end of a VPN connection."""

    aws_instance: dict[str, str] | None = Field(default=None, min_length=1)
    """Tags that the instance must have, for example `{Name: cloud-gw}`."""
    aws_vpn_connection: dict[str, str] | None = Field(default=None, min_length=1)
    """Tags that the VPN connection must have, for example `{Name: office}`."""

    @model_validator(mode="after")
    def _one(self) -> StandsFor:
        if (self.aws_instance is None) == (self.aws_vpn_connection is None):
            msg = "it stands for one thing: give either `aws_instance` or `aws_vpn_connection`"
            raise ValueError(msg)
        return self


class StandIn(Model):
    """A machine: a network namespace with its own root file system, host name and sshd."""

    site: StandInName | None = None
    """The underlay it is attached to, with its interface `eth0`."""
    address: Address | None = None
    """Its address there; one that stands for an instance gets its Elastic IP instead, one that stands for a VPN
    connection those of both tunnels."""
    lans: dict[StandInName, AddressWithLength] = Field(default_factory=dict)
    """Its addresses on LANs shared with other stand-ins, on `eth1` and so on in this order."""
    routes: tuple[Route, ...] = ()
    """Routes beyond the connected ones and the default route to the site's router."""
    forwards: bool = False
    """Whether it forwards packets between its interfaces from the start."""
    services: dict[StandInName, Service] = Field(default_factory=dict)
    """What runs on it from the start, beside sshd."""
    stands_for: StandsFor | None = None
    """The instance or VPN connection it stands for."""

    @model_validator(mode="after")
    def _reachable(self) -> StandIn:
        if self.site is None and self.address is not None:
            msg = "`address` needs a `site`: it is the address there"
            raise ValueError(msg)
        if self.site is None and not self.lans and self.stands_for is None:
            msg = "a stand-in needs a `site`, a LAN in `lans`, or an instance in `stands_for`"
            raise ValueError(msg)
        return self

    @property
    def vpn_tags(self) -> dict[str, str] | None:
        """The tags of the VPN connection that it stands for; None when it stands for none."""
        return None if self.stands_for is None else self.stands_for.aws_vpn_connection


class Image(Model):
    """A machine image that the stand-in AWS offers."""

    name: str
    """Its name, as a filter finds it (`debian-12-amd64-20250316-2053`)."""
    owner: str = Field(pattern=r"^\d{12}$")
    """Account id of its owner."""
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    """Processor architecture."""


class Aws(Model):
    """The AWS that Terraform talks to in the world: in-process, gone with it."""

    site: StandInName
    """The underlay that Elastic IPs belong to."""
    elastic_ips: Prefix | None = None
    """Where Elastic IPs are allocated from; default: the upper half of the site's prefix."""
    images: tuple[Image, ...] = ()
    """Machine images to find, besides those that moto knows."""


class PublicKeyOf(Model):
    """An input whose value is the public half of a generated secret."""

    public_key_of: str
    """Name of a secret that is `generated`."""


class GivenSecret(Model):
    """A secret whose value does not matter: the world has no use for a real one."""

    value: str
    """The value inside the world."""


class Trouble(Model):
    """Something that goes wrong after the deployment was stopped and started: `check` has to tell of it, and `up` to
    repair it without touching what `check` finds well."""

    name: StandInName
    """A short name: its step in the report."""
    fault: str | None = None
    """What befalls the world, as `python -m skyspan.rehearsal fault` would be told: `kill office charon`."""
    run: str | None = None
    """Or a command on `host` that does the damage, for `/bin/sh -eu`: `docker kill clab-hybrid-r2`."""
    host: StandInName | None = None
    """The stand-in on which `run` and `keeps` run."""
    stage: str
    """The stage that it concerns: `check` fails it, and `up` applies it."""
    named: str = Field(min_length=1)
    """A text in what `check` says of that stage, such as the name of the node that is gone."""
    within: Seconds = 20.0
    """How long `check` is asked again until it says so: not every trouble shows at once."""
    keeps: str | None = None
    """A command on `host` that tells what has to stay as it is, such as the start times of other containers: it has to
    say the same before the trouble and after the repair."""

    @model_validator(mode="after")
    def _sayable(self) -> Trouble:
        if (self.fault is None) == (self.run is None):
            msg = "a trouble is one thing: give either `fault`, or `run` with a `host`"
            raise ValueError(msg)
        if self.host is None and (self.run is not None or self.keeps is not None):
            msg = "`run` and `keeps` need a `host`: the stand-in on which they run"
            raise ValueError(msg)
        return self


class Rehearsal(Model):
    """The whole section."""

    sites: dict[StandInName, Site] = Field(min_length=1)
    """Underlay networks; the router between them is the only way from one to another."""
    hosts: dict[StandInName, StandIn] = Field(default_factory=dict)
    """The machines."""
    aws: Aws | None = None
    """A stand-in AWS, for compositions with the AWS provider of Terraform."""
    secrets: dict[str, Literal["generated"] | GivenSecret] = Field(default_factory=dict)
    """The composition's secrets: `generated` makes an SSH key that every stand-in accepts."""
    inputs: dict[str, PublicKeyOf | Value] = Field(default_factory=dict)
    """The composition's inputs in a rehearsal; they win over its defaults."""
    trouble: tuple[Trouble, ...] = ()
    """What goes wrong in the rehearsal, one after the other, before it destroys the deployment."""
    control: Prefix = IPv4Network("198.18.0.0/30")
    """The network between the world's router and the place where Skyspan itself runs (the second address)."""

    @model_validator(mode="after")
    def _consistent(self) -> Rehearsal:
        problems = [*_site_problems(self), *_host_problems(self), *_aws_problems(self), *_input_problems(self)]
        problems += _trouble_problems(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def elastic_ips(self) -> IPv4Network | None:
        """Where Elastic IPs come from."""
        if self.aws is None:
            return None
        return self.aws.elastic_ips or list(self.sites[self.aws.site].prefix.subnets())[-1]


def _site_problems(rehearsal: Rehearsal) -> list[str]:
    networks: dict[str, IPv4Network] = {"control": rehearsal.control}
    problems = []
    for name, site in rehearsal.sites.items():
        if site.prefix.num_addresses < 8:
            problems.append(f"sites.{name}.prefix {site.prefix} is too small: use /29 or larger")
        problems += [
            f"sites.{name}.prefix {site.prefix} overlaps {other} ({prefix})"
            for other, prefix in networks.items()
            if prefix.overlaps(site.prefix)
        ]
        networks[name] = site.prefix
    return problems


def _host_problems(rehearsal: Rehearsal) -> list[str]:
    problems = []
    taken: dict[IPv4Address, str] = {}
    for name, host in rehearsal.hosts.items():
        if name in RESERVED_NAMES:
            problems.append(f"hosts.{name}: every world has a {name} already; choose another name")
        if host.stands_for is not None and rehearsal.aws is None:
            problems.append(f"hosts.{name}.stands_for needs an `aws:` section")
        elif rehearsal.aws is not None and host.vpn_tags is not None:
            problems += _vpn_problems(name, host, rehearsal.aws)
        if host.site is not None and host.site not in rehearsal.sites:
            problems.append(f"hosts.{name}.site names no site: {host.site}; there are {', '.join(rehearsal.sites)}")
        elif host.site is not None and host.address is not None:
            site = rehearsal.sites[host.site]
            if host.address not in site.prefix or host.address == site.prefix.network_address + 1:
                problems.append(
                    f"hosts.{name}.address {host.address} is no free address of {host.site} ({site.prefix})"
                )
        if host.address is not None and host.address in taken:
            problems.append(f"hosts.{name}.address {host.address} is already that of {taken[host.address]}")
        elif host.address is not None:
            taken[host.address] = name
        problems += _service_problems(name, host)
    serving = [name for name, host in rehearsal.hosts.items() if services_of(host, Headscale)]
    if len(serving) > 1:
        problems.append(f"hosts.{serving[1]}.services: there is a headscale on {serving[0]} already")
    return problems


def _vpn_problems(name: str, host: StandIn, aws: Aws) -> list[str]:
    if host.address is not None or host.lans:
        return [f"hosts.{name} stands for a VPN connection: its addresses come from the cloud alone"]
    if host.site != aws.site:
        return [f"hosts.{name} stands for a VPN connection: its `site` is that of `aws` ({aws.site})"]
    return []


def services_of(host: StandIn, kind: type[Served]) -> tuple[Served, ...]:
    """The services of one kind on a stand-in."""
    return tuple(service for service in host.services.values() if isinstance(service, kind))


def _service_problems(name: str, host: StandIn) -> list[str]:
    problems = []
    if services_of(host, Headscale) and host.address is None and not host.lans:
        problems.append(f"hosts.{name}.services: a headscale needs an address from the start")
    if len(services_of(host, Tailscaled)) > 1:
        problems.append(f"hosts.{name}.services: one tailscaled is all that a host can have")
    if len(services_of(host, Docker)) > 1:
        problems.append(f"hosts.{name}.services: one docker is all that a host can have")
    return problems


def _aws_problems(rehearsal: Rehearsal) -> list[str]:
    aws = rehearsal.aws
    if aws is None:
        return []
    if aws.site not in rehearsal.sites:
        return [f"aws.site names no site: {aws.site}; there are {', '.join(rehearsal.sites)}"]
    pool, prefix = aws.elastic_ips, rehearsal.sites[aws.site].prefix
    if pool is not None and not pool.subnet_of(prefix):
        return [f"aws.elastic_ips {pool} is not inside {aws.site} ({prefix})"]
    return []


def _input_problems(rehearsal: Rehearsal) -> list[str]:
    generated = {name for name, value in rehearsal.secrets.items() if value == "generated"}
    return [
        f"inputs.{name}: {value.public_key_of} is no generated secret"
        for name, value in rehearsal.inputs.items()
        if isinstance(value, PublicKeyOf) and value.public_key_of not in generated
    ]


def _trouble_problems(rehearsal: Rehearsal) -> list[str]:
    problems = [
        f"trouble.{number}.host names no stand-in: {trouble.host}; there are {', '.join(rehearsal.hosts)}"
        for number, trouble in enumerate(rehearsal.trouble)
        if trouble.host is not None and trouble.host not in rehearsal.hosts
    ]
    names = [trouble.name for trouble in rehearsal.trouble]
    return problems + [f"trouble: there are two of the name {name}" for name in names if names.count(name) > 1][:1]


def uses_tags(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether an object with `tags` is one that `wanted` describes."""
    return all(tags.get(key) == value for key, value in wanted.items())
