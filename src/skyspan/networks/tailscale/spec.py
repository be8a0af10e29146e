"""The settings of a tailscale stage, and what can be said against them without looking at a host."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Annotated, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from skyspan.contracts.network import NetworkSpec
from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds

PACKAGES = "https://pkgs.tailscale.com/stable"
"""The vendor's package source, as its own installation script uses it."""

SCRIPT = "https://tailscale.com/install.sh"
"""The vendor's installation script."""

_TAG = re.compile(r"tag:[a-z][a-z0-9-]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = re.compile(r"\d+(\.\d+){0,2}")
_OURS = "SKYSPAN_"


def _checked(check: Callable[[str], None]) -> AfterValidator:
    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _tag(text: str) -> None:
    if _TAG.fullmatch(text) is None:
        msg = f"{text!r} is no tag: write tag:NAME with lower-case letters, digits and -, beginning with a letter"
        raise ValueError(msg)


def _member(text: str) -> None:
    if _LABEL.fullmatch(text) is None:
        msg = f"host {text!r} cannot be a name in a tailnet, which would change it: lower-case letters, digits and -"
        raise ValueError(msg)


def _domain(text: str) -> None:
    labels = text.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        msg = f"{text!r} is no tailnet domain such as mytailnet.ts.net (the admin console shows it on its DNS page)"
        raise ValueError(msg)


def _variable(text: str) -> None:
    if text.startswith(("tskey-", "hskey-")):
        msg = "write the NAME of an environment variable here, never the key itself"
        raise ValueError(msg)
    if _VARIABLE.fullmatch(text) is None:
        msg = "this is no name of an environment variable: letters, digits and _"
        raise ValueError(msg)
    if text.startswith(_OURS):
        msg = f"{text} is one of Skyspan's own variables: choose a name that does not begin with {_OURS}"
        raise ValueError(msg)


def _server(text: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        msg = f"{text!r} is no address of a control server: write https://NAME, with :PORT if it differs"
        raise ValueError(msg)


def _prefix(text: str) -> None:
    try:
        network = ip_network(text)
    except ValueError as error:
        msg = f"{text!r} is no network prefix such as 10.20.0.0/16"
        raise ValueError(msg) from error
    if network.prefixlen == 0:
        msg = f"{text} is everything: this joins sites and makes no exit node"
        raise ValueError(msg)


def _version(text: str) -> None:
    if _VERSION.fullmatch(text) is None:
        msg = f'{text!r} is no version: write it as a text such as "1.80" or "1.80.2"'
        raise ValueError(msg)


def version_numbers(text: str) -> tuple[int, ...]:
    """A version as numbers that compare, of `1.80` or `1.102.3-t0a1b2c-g3d4e`."""
    return tuple(int(part) for part in re.split(r"[-+]", text, maxsplit=1)[0].split(".") if part.isdigit())


Tag: TypeAlias = Annotated[str, _checked(_tag)]
Member: TypeAlias = Annotated[str, _checked(_member)]
Prefix: TypeAlias = Annotated[str, _checked(_prefix)]


class Install(Spec):
    """How Tailscale gets onto the hosts."""

    method: Literal["package", "script", "none"] = "package"
    """`package` adds the vendor's signed package source (Debian and Ubuntu), `script` runs the vendor's installation
    script (Debian and Ubuntu); `none` installs nothing: it must be there."""
    min_version: Annotated[str, _checked(_version)] | None = None
    """Oldest version that will do, such as `"1.80"`; an older one is upgraded by the same method."""
    source: Annotated[str, _checked(_server)] | None = None
    """A mirror to install from: of the package source (`https://mirror.example.org/tailscale`), or of the script."""

    @property
    def address(self) -> str:
        """Where it is fetched from."""
        return (self.source or (SCRIPT if self.method == "script" else PACKAGES)).rstrip("/")


class TailscaleSpec(NetworkSpec):
    """Hosts that are to be members of one tailnet."""

    domain_setting: ClassVar[str] = "tailnet_domain"

    hosts: tuple[Member, ...] = Field(min_length=1)
    """The hosts that join. Later stages read their names as `hosts.H.fqdn`."""
    tailnet_domain: Annotated[str, _checked(_domain)]
    """The tailnet's domain, such as `mytailnet.ts.net`; a host's name in it is `HOST.DOMAIN`."""
    auth_key_env: Annotated[str, _checked(_variable)] = "TS_AUTHKEY"
    """Name of the environment variable that holds the auth key. It is read only when a host has to join, and travels by
    standard input: never in a command line, a file or the state."""
    default_tags: tuple[Tag, ...] = ()
    """Tags of every host: `tag:NAME`."""
    role_tags: dict[str, tuple[Tag, ...]] = Field(default_factory=dict)
    """Further tags for the hosts of a role (`roles` of a host)."""
    tag_source: Literal["key", "advertise"] | None = None
    """Where tags come from: the `key` carries them, or the hosts `advertise` them, as the tailnet's policy must allow.
    Default: `key` with a `login_server`, as Headscale refuses a key together with tags; else `advertise`."""
    retag: bool = False
    """Join a host again when its tags are not the wanted ones. It drops the host's connections for a moment, so it must
    be asked for."""
    login_server: Annotated[str, _checked(_server)] | None = None
    """Address of a Headscale server; default: Tailscale's own. A member with tags that has left cannot come back to
    Headscale 0.29, nor get other tags, until the server has forgotten it (`headscale nodes delete`)."""
    advertise_routes: dict[str, tuple[Prefix, ...]] = Field(default_factory=dict)
    """Networks that a host is the subnet router of, by host. The server has to approve them."""
    accept_routes: bool = False
    """Whether the hosts use the routes that others advertise."""
    accept_dns: bool = True
    """Whether the hosts resolve the tailnet's names by its DNS, which takes over their resolver."""
    ping: bool = True
    """The stage is ready only when the hosts reach each other through the tailnet: each is pinged by the one before.
    Turn it off where the tailnet's policy keeps them apart."""
    install: Install = Install()
    """Whether and from where Tailscale is installed."""
    join_within: Seconds = 60.0
    """How long one host may take to join."""
    ready_within: Seconds = 30.0
    """How long it may take after that until names, tags, routes and pings are right."""

    @property
    def tags_by_key(self) -> bool:
        """Whether the auth key carries the tags, and the hosts must not ask for any."""
        return (self.tag_source or ("key" if self.login_server else "advertise")) == "key"

    def tags_of(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The tags of a host with these roles, sorted."""
        more = (tag for role in roles for tag in self.role_tags.get(role, ()))
        return tuple(sorted({*self.default_tags, *more}))

    @model_validator(mode="after")
    def _fits(self) -> TailscaleSpec:
        problems = [f"host {host} is named twice" for host in sorted(_twice(self.hosts))]
        problems += [f"`advertise_routes` names {host}, which is not in `hosts`" for host in self._strangers()]
        routed = [prefix for prefixes in self.advertise_routes.values() for prefix in prefixes]
        problems += [f"{prefix} is advertised twice" for prefix in sorted(_twice(routed))]
        if self.install.method == "none" and self.install.source is not None:
            problems.append("`install.source` has no use with `method: none`")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _strangers(self) -> list[str]:
        return sorted(set(self.advertise_routes) - set(self.hosts))


def _twice(items: tuple[str, ...] | list[str]) -> set[str]:
    counts: Mapping[str, int] = {item: list(items).count(item) for item in items}
    return {item for item, count in counts.items() if count > 1}
