"""The commands that run on a lab's host, as values: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from types import MappingProxyType

from skyspan.contracts.transport import Command, Effect, StopLadder
from skyspan.providers.netlab import scripts
from skyspan.providers.netlab.package import Package
from skyspan.providers.netlab.spec import NetlabSpec

FOREIGN, NUMBER_TAKEN, NAME_TAKEN, NETWORK_TAKEN = 90, 91, 92, 93
"""Exit statuses of `claim`."""

VALIDATION: Mapping[int, str] = MappingProxyType({0: "passed", 1: "failed", 2: "none", 3: "warnings"})
"""What `netlab validate --skip-missing` ends with (netlab's manual, "netlab validate")."""

LOOK_S = 30.0
_CREATE_S = 300.0
_LADDER = StopLadder(first_s=30.0, second_s=10.0)

_DEVICES_WITH_MODULES = ("cisco8000v", "cumulus", "cumulus_nvue", "frr", "linux", "sonic", "vyos")
"""Devices for which netlab loads kernel modules of the host before it starts their containers."""

_DEVICES = frozenset(
    (
        "arcos", "arubacx", "asav", "cat8000v", "cisco8000v", "crpd", "csr", "csrx", "cumulus", "cumulus_nvue",
        "dellos10", "eos", "exos", "fortios", "frr", "iol", "ioll2", "iosv", "iosvl2", "iosxr", "junos",
        "linux", "netscaler", "nxos", "openbsd", "routeros", "routeros7", "sonic", "srlinux", "sros", "srsim",
        "vjunos-router", "vjunos-switch", "vmx", "vpp", "vptx", "vsrx", "vyos",
    )
)  # fmt: skip
_DAEMONS = frozenset(("bird", "dnsmasq"))
"""Device types of netlab 26.10 that are containers."""

_MULTILAB_START = 100
_USUAL_LENGTH = 24


@dataclass(frozen=True, slots=True)
class Place:
    """A lab on a host: where its files are and what it is called there. `management` is its network, empty for a lab
    of devices that exist."""

    key: str
    owner: str
    number: int
    name: str
    network: str = ""
    bridge: str = ""
    management: str = ""

    @property
    def folder(self) -> str:
        """Where everything of it is on the host."""
        return f"/var/lib/skyspan/netlab/{self.key}"

    @property
    def lab(self) -> str:
        """The topology's own folder there, in which netlab runs."""
        return f"{self.folder}/lab"


def variables(spec: NetlabSpec, place: Place) -> tuple[str, ...]:
    """Settings for netlab as its variables (`NETLAB_A_B` is `defaults.a.b`), which win over what the topology says;
    each value is YAML."""
    change: dict[str, object] = {"name": place.name, "defaults.name": place.name}
    if place.management:
        change["defaults.providers.clab.mgmt_default_ipv6"] = "fd00:df:1ab:{id}::/64"
        mgmt: dict[str, object] = {"ipv4": place.management, "_network": place.network, "_bridge": place.bridge}
        network = IPv4Network(place.management)
        if network.prefixlen > _USUAL_LENGTH:
            mgmt["start"] = min(_MULTILAB_START, network.num_addresses // 8)
        change["addressing.mgmt"] = mgmt
    found: dict[str, object] = {"provider": "clab", "multilab.change": change}
    for holder, known in (("devices", _DEVICES), ("daemons", _DAEMONS)):
        # Before netlab looks for them on the host; in the containerlab topology all of `images` is heeded once more.
        found |= {f"{holder}.{key}.clab.image": image for key, image in spec.images.items() if key in known}
    if spec.restricted:
        found["providers.clab.kmods"] = {}
        found |= {f"devices.{device}.clab.kmods": {} for device in _DEVICES_WITH_MODULES}
    return tuple(f"{_variable(name)}={json.dumps(value)}" for name, value in found.items())


def create_options(spec: NetlabSpec, place: Place) -> tuple[str, ...]:
    """Options of `netlab create`."""
    options = ["--plugin", "multilab", "--set", f"defaults.multilab.id={place.number}"]
    if spec.provider is not None:
        options += ["--provider", spec.provider]
    if spec.device is not None:
        options += ["--device", spec.device]
    for name, value in spec.settings.items():
        options += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    return tuple(options)


def _variable(name: str) -> str:
    return "NETLAB_" + name.replace("_", "__").replace(".", "_").upper()


def _argv(spec: NetlabSpec, place: Place, script: str, *arguments: str, root: bool = True) -> tuple[str, ...]:
    settings = "\n".join(variables(spec, place))
    own = (place.key, place.owner, spec.program, place.name, place.network, settings, *arguments)
    whole = (scripts.PLACES + script, "skyspan", *own)
    return ("sh", "-c", scripts.AS_ROOT, "skyspan", *whole) if root else ("sh", "-euc", *whole)


def look(spec: NetlabSpec, place: Place) -> Command:
    """Look at the stage's folder and the tools."""
    return Command(_argv(spec, place, scripts.LOOK), stdin=b"", timeout_s=LOOK_S, effect=Effect.READ)


def trial(spec: NetlabSpec, place: Place, package: Package) -> Command:
    """See what netlab makes of the topology, in a folder that is gone afterwards."""
    argv = _argv(spec, place, scripts.TRIAL, package.topology, *create_options(spec, place), root=False)
    return Command(argv, stdin=package.archive(), timeout_s=_CREATE_S, effect=Effect.READ, ladder=_LADDER)


def claim(spec: NetlabSpec, place: Place) -> Command:
    """Mark folder, number, name and management network as the stage's own."""
    argv = _argv(spec, place, scripts.CLAIM, str(place.number), place.management)
    return Command(argv, stdin=b"", timeout_s=LOOK_S)


def ship(spec: NetlabSpec, place: Place, package: Package) -> Command:
    """Put the files in place."""
    argv = _argv(spec, place, scripts.SHIP, package.digest, package.topology)
    return Command(argv, stdin=package.archive(), timeout_s=_CREATE_S)


def create(spec: NetlabSpec, place: Place, topology: str, *, told: bool) -> Command:
    """`netlab create`, and with `told` what came of it."""
    argv = _argv(spec, place, scripts.CREATE, "told" if told else "", topology, *create_options(spec, place))
    return Command(argv, stdin=b"", timeout_s=_CREATE_S, ladder=_LADDER)


def missing_images(spec: NetlabSpec, place: Place, images: Sequence[str]) -> Command:
    """Ask which of the images are not there."""
    return Command(_argv(spec, place, scripts.IMAGES, *images), stdin=b"", timeout_s=LOOK_S, effect=Effect.READ)


def up(spec: NetlabSpec, place: Place, clab: str, *, external: bool) -> Command:
    """`netlab up`. Only for devices that exist it is quiet (`-q`): it asks about their cabling otherwise; elsewhere
    being quiet hides why a command failed."""
    options = (*(("-q",) if external else ()), *(() if spec.configure else ("--no-config",)))
    return Command(_argv(spec, place, scripts.UP, *options), stdin=clab.encode(), ladder=_LADDER)


def deploy(
    spec: NetlabSpec, place: Place, clab: str, containers: Sequence[str], nodes: Sequence[str], ends: Sequence[str]
) -> Command:
    """Make some nodes of a running lab anew, and configure those; `ends` are lines of the script."""
    lines = "".join(f"{end}\n" for end in ends) if spec.configure else ""
    arguments = (" ".join(containers), ",".join(nodes) if spec.configure else "", lines)
    return Command(_argv(spec, place, scripts.DEPLOY, *arguments), stdin=clab.encode(), ladder=_LADDER)


def validate(spec: NetlabSpec, place: Place) -> Command:
    """Run the topology's tests; what they do is to look."""
    return Command(_argv(spec, place, scripts.VALIDATE), stdin=b"", effect=Effect.READ, ladder=_LADDER)


def down(spec: NetlabSpec, place: Place, bridges: Sequence[str]) -> Command:
    """Take the lab down, keep its files."""
    return Command(_argv(spec, place, scripts.DOWN, " ".join(bridges)), stdin=b"", ladder=_LADDER)


def remove(spec: NetlabSpec, place: Place, bridges: Sequence[str]) -> Command:
    """Take everything away."""
    return Command(_argv(spec, place, scripts.REMOVE, " ".join(bridges)), stdin=b"", ladder=_LADDER)
