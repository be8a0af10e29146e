"""Which providers exist: an explicit table of lazy imports, then the entry points of installed distributions."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from skyspan.contracts.provider import (
    Provider,
    Spec,
    SupportsLinks,
    SupportsPreflight,
    SupportsSources,
    SupportsStart,
    SupportsStop,
)
from skyspan.model.error import SpecError, ToolMissingError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "skyspan.providers"
"""Entry point group by which a distribution offers providers: `kind = "module:Class"`."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A provider of this distribution: where its class and its settings are, and what it needs beside Skyspan.

    `settings` is named so that `validate` need not import what drives the tool.
    """

    target: str
    settings: str
    install: str = ""


BUILT_IN: Mapping[str, BuiltIn] = MappingProxyType(
    {
        "ansible": BuiltIn(
            "skyspan.providers.ansible.provider:AnsibleProvider",
            "skyspan.providers.ansible.spec:AnsibleSpec",
            "ansible-core (ansible-playbook)",
        ),
        "aws-vpn": BuiltIn(
            "skyspan.networks.awsvpn.provider:AwsVpnProvider",
            "skyspan.networks.awsvpn.spec:AwsVpnSpec",
            "strongSwan (charon and swanctl) on the host, and BIRD 2 or FRR for BGP",
        ),
        "bgp": BuiltIn(
            "skyspan.networks.bgp.provider:BgpProvider",
            "skyspan.networks.bgp.spec:BgpSpec",
            "BIRD 2 or FRR on the hosts",
        ),
        "check": BuiltIn(
            "skyspan.providers.check.provider:CheckProvider",
            "skyspan.providers.check.spec:CheckSpec",
            "ping, for icmp checks",
        ),
        "command": BuiltIn(
            "skyspan.providers.command.provider:CommandProvider",
            "skyspan.providers.command.spec:CommandSpec",
        ),
        "compose": BuiltIn(
            "skyspan.providers.compose.provider:ComposeProvider",
            "skyspan.providers.compose.spec:ComposeSpec",
            "Docker 19.03 or later and Compose 2, here or on the host",
        ),
        "containerlab": BuiltIn(
            "skyspan.providers.containerlab.provider:ContainerlabProvider",
            "skyspan.providers.containerlab.spec:ContainerlabSpec",
            "containerlab 0.79 and Docker on the lab's host",
        ),
        "docker": BuiltIn(
            "skyspan.providers.docker.provider:DockerProvider",
            "skyspan.providers.docker.spec:DockerSpec",
            "Docker 19.03 or later, here or on the host",
        ),
        "http": BuiltIn(
            "skyspan.providers.http.provider:HttpProvider",
            "skyspan.providers.http.spec:HttpSpec",
        ),
        "ipsec": BuiltIn(
            "skyspan.networks.ipsec.provider:IpsecProvider",
            "skyspan.networks.ipsec.spec:IpsecSpec",
            "strongSwan (charon and swanctl) on both hosts",
        ),
        "netlab": BuiltIn(
            "skyspan.providers.netlab.provider:NetlabProvider",
            "skyspan.providers.netlab.spec:NetlabSpec",
            "netlab, containerlab and Docker on the lab's host",
        ),
        "routes": BuiltIn(
            "skyspan.networks.routes.provider:RoutesProvider",
            "skyspan.networks.routes.spec:RoutesSpec",
        ),
        "ssh-tunnel": BuiltIn(
            "skyspan.networks.sshtunnel.provider:SshTunnelProvider",
            "skyspan.networks.sshtunnel.spec:SshTunnelSpec",
        ),
        "tailscale": BuiltIn(
            "skyspan.networks.tailscale.provider:TailscaleProvider",
            "skyspan.networks.tailscale.spec:TailscaleSpec",
            "Tailscale on the hosts, which it can install itself on Debian and Ubuntu",
        ),
        "terraform": BuiltIn(
            "skyspan.providers.terraform.provider:TerraformProvider",
            "skyspan.providers.terraform.spec:TerraformSpec",
            "OpenTofu or Terraform",
        ),
        "traffic": BuiltIn(
            "skyspan.providers.traffic.provider:TrafficProvider",
            "skyspan.providers.traffic.spec:TrafficSpec",
            "iperf3, Python 3 or ping where the traffic begins and ends",
        ),
        "wireguard": BuiltIn(
            "skyspan.networks.wireguard.provider:WireguardProvider",
            "skyspan.networks.wireguard.spec:WireguardSpec",
            "wireguard-tools on both hosts",
        ),
    }
)

_ABILITIES: tuple[tuple[str, type[Any]], ...] = (
    ("preflight", SupportsPreflight),
    ("sources", SupportsSources),
    ("stop", SupportsStop),
    ("start", SupportsStart),
    ("links", SupportsLinks),
)

_VERBS = ("observe", "plan", "apply", "destroy")


@dataclass(frozen=True, slots=True)
class ProviderDescription:
    """A provider for people: its abilities beyond the four verbs, and what it needs beside Skyspan."""

    kind: str
    summary: str
    abilities: tuple[str, ...]
    module: str
    distribution: str
    install: str = ""


def _installed() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # reads every distribution's metadata: only when it must

    return entry_points(group=GROUP)


class Registry:
    """Finds providers by kind; each class is imported and made once, when it is first asked for."""

    def __init__(
        self,
        built_in: Mapping[str, BuiltIn] = BUILT_IN,
        entry_points: Callable[[], Iterable[EntryPoint]] = _installed,
    ) -> None:
        self._built_in = built_in
        self._entry_points = entry_points
        self._offered: Mapping[str, EntryPoint] | None = None
        self._made: dict[str, Provider[Any]] = {}

    def get(self, kind: str) -> Provider[Any]:
        """The provider of that name.

        Raises SpecError for an unknown one, naming the nearest, and for one that is offered twice; raises
        ToolMissingError saying which distribution is broken and how.
        """
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        return self._made[kind]

    def spec_of(self, kind: str) -> type[Spec]:
        """The model of that provider's settings; raises as `get`."""
        known = self._built_in.get(kind)
        if known is None or kind in self._made:
            spec: type[Spec] = self.get(kind).spec
            return spec
        settings: type[Spec] = _guarded(kind, "skyspan", lambda: _imported(known.settings))
        return settings

    def kinds(self) -> tuple[str, ...]:
        """Every known name, sorted; raises SpecError when one is offered twice."""
        return tuple(sorted({*self._built_in, *self._offers()}))

    def describe(self) -> tuple[ProviderDescription, ...]:
        """Every provider, by name; raises as `get`: a broken one is never left out silently."""
        return tuple(self._describe(kind) for kind in self.kinds())

    def _describe(self, kind: str) -> ProviderDescription:
        provider = self.get(kind)
        known = self._built_in.get(kind)
        return ProviderDescription(
            kind=kind,
            summary=(inspect.getdoc(type(provider)) or "").partition("\n")[0],
            abilities=tuple(name for name, protocol in _ABILITIES if isinstance(provider, protocol)),
            module=type(provider).__module__,
            distribution="skyspan" if known else _distribution(self._offers()[kind]),
            install=known.install if known else "",
        )

    def _make(self, kind: str) -> Provider[Any]:
        known = self._built_in.get(kind)
        if known is not None:
            return _load(kind, "skyspan", lambda: _imported(known.target))
        offer = self._offers().get(kind)
        if offer is None:
            raise _unknown(kind, self.kinds())
        return _load(kind, _distribution(offer), offer.load)

    def _offers(self) -> Mapping[str, EntryPoint]:
        if self._offered is None:
            self._offered = _without_duplicates(self._entry_points(), self._built_in)
        return self._offered


def _without_duplicates(offers: Iterable[EntryPoint], built_in: Mapping[str, BuiltIn]) -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for offer in offers:
        earlier = "skyspan" if offer.name in built_in else None
        if offer.name in found and found[offer.name].value != offer.value:
            earlier = _distribution(found[offer.name])
        if earlier is not None:
            raise SpecError(
                f"provider {offer.name!r} is offered twice: by {earlier} and by {_distribution(offer)} ({offer.value})",
                hint=f"uninstall one of the two; a provider of your own needs a name of its own in group {GROUP!r}",
            )
        found[offer.name] = offer
    return MappingProxyType(found)


def _unknown(kind: str, kinds: tuple[str, ...]) -> SpecError:
    near = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known providers: {', '.join(kinds)}"
    return SpecError(f"no provider is called {kind!r}", hint=hint)


def _load(kind: str, distribution: str, load: Callable[[], Any]) -> Provider[Any]:
    def make() -> Any:
        return load()()

    provider = _guarded(kind, distribution, make)
    flaw = _flaw(kind, provider)
    if flaw:
        raise ToolMissingError(
            f"provider {kind!r} of {distribution} is no provider: {flaw}",
            hint=f"what a provider needs is written in skyspan.contracts.provider; tell the authors of {distribution}",
        )
    made: Provider[Any] = provider
    return made


def _guarded(kind: str, distribution: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; anything it raises becomes an error that names the distribution."""
    try:
        return load()
    except Exception as error:
        raise ToolMissingError(
            f"provider {kind!r} of {distribution} cannot be loaded",
            detail=f"{type(error).__name__}: {error}",
            hint=f"install {distribution} again, with what it depends on",
        ) from error


def _flaw(kind: str, provider: object) -> str:
    spec = getattr(provider, "spec", None)
    if getattr(provider, "kind", None) != kind:
        return f"it calls itself {getattr(provider, 'kind', None)!r}"
    if not (isinstance(spec, type) and issubclass(spec, Spec)):
        return "its spec is not a model of settings"
    missing = [verb for verb in _VERBS if not callable(getattr(provider, verb, None))]
    return f"it has no {', '.join(missing)}" if missing else ""


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _distribution(offer: EntryPoint) -> str:
    return f"{offer.dist.name} {offer.dist.version}" if offer.dist is not None else "an unnamed distribution"
