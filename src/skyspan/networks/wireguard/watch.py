"""Watching over a link while it is up: quick probes, its trouble in words, and what each end can do about it: pure but
for the commands that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from skyspan.contracts.transport import Command, Effect
from skyspan.contracts.watch import Cause, Finding, Passage, Repair
from skyspan.networks import docker
from skyspan.networks.peers import ROUTE_PROTOCOL
from skyspan.networks.wireguard.config import QUICK_ONLY
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import Ends, EndState, PeerState
from skyspan.networks.wireguard.parse import NEVER, Survey
from skyspan.networks.wireguard.ready import HANDSHAKE_AGE_S

RERESOLVE, REAPPLY, RESTART = "re-resolve", "reapply", "restart"

_CLOCK_S = 120.0
"""From so many seconds on a peer's stamps may be refused after a restart (WireGuard paper, section 5.4.2)."""

_LOCAL = frozenset(
    {
        *(Cause.INTERFACE_MISSING, Cause.DAEMON_DOWN, Cause.ROUTE_MISSING, Cause.FORWARD_DROPPED),
        *(Cause.AUTHENTICATION, Cause.ALLOWED_IPS),
    }
)

_PROBE = """
PATH=$PATH:/usr/sbin:/sbin
if=$1 proto=$2 families=$3; shift 3
for peer in "$@"; do
  { if ping -n -q -c 1 -W 1 "$peer" >/dev/null 2>&1; then echo "$peer yes"; else echo "$peer no"; fi; } &
done
for family in 4 6; do
  ip -$family route show dev "$if" proto "$proto" 2>/dev/null | while read -r to rest; do
    case $family$to in 4default) to=0.0.0.0/0;; 6default) to=::/0;; esac
    echo "routed $to"
  done
done
for family in $families; do
  if [ "$family" = 4 ]; then file=ipv4/ip_forward; else file=ipv6/conf/all/forwarding; fi
  if [ "$(cat /proc/sys/net/$file 2>/dev/null)" = 0 ]; then echo "held $family"; fi
done
wait
"""
"""One small ping to each address, all at once, in at most a second; and what a ping between the gateways cannot show:
whether the ways to the networks behind them stand. Arguments: interface, our routes' protocol number, the IP versions
to forward, the addresses."""

_RERESOLVE = """
PATH=$PATH:/usr/sbin:/sbin
if=$1; shift
while [ $# -gt 0 ]; do
  key=$1 name=$2 port=$3; shift 3
  known=$(wg show "$if" endpoints | awk -v key="$key" '$1 == key { print $2 }')
  found=$(getent ahosts "$name" | awk '$2 == "DGRAM" || $2 == "" { print $1 }' | sort -u)
  for address in $found; do
    case $address in *:*) there="[$address]:$port";; *) there="$address:$port";; esac
    if [ "$there" = "$known" ]; then found=; break; fi
  done
  for address in $found; do
    case $address in *:*) there="[$address]:$port";; *) there="$address:$port";; esac
    wg set "$if" peer "$key" endpoint "$there"
    echo "$name is at $there now, not at $known"
    break
  done
done
"""
"""Give the interface the present address of every peer that is called by name, where it differs. Arguments: the
interface, then for each such peer its public key, name and port."""


def probe_command(end: EndState) -> Command:
    """A ping to each peer of an end."""
    families = " ".join(map(str, end.families))
    argv = ("sh", "-uc", _PROBE, "skyspan", end.interface, str(ROUTE_PROTOCOL), families, *end.peer_addresses)
    return Command(argv, timeout_s=3.0, effect=Effect.READ)


def passages(end: EndState, said: str) -> Iterator[Passage]:
    """What the probe of an end found. A peer is reached when any of its addresses answers and the networks behind it
    are routed to it."""
    lines = [line.split() for line in said.splitlines() if line.strip()]
    answers = {first: second for first, second in lines if first not in ("routed", "held")}
    routed = {str(ip_network(second)) for first, second in lines if first == "routed"}
    held = [second for first, second in lines if first == "held"]
    astray = {net for net in end.destinations if str(net) not in routed}
    for peer in end.peers:
        reason = f"forwarding of IPv{held[0]} is off" if held else ""
        missing = [str(net) for net in peer.behind if net in astray]
        if missing:
            reason = f"{', '.join(missing)} is not routed over {end.interface}"
        if not any(answers.get(address) == "yes" for address in peer.addresses):
            reason = f"no answer from {', '.join(peer.addresses)}"
        yield Passage(end.host, peer.host, not reason, reason)


def unknown(end: EndState, reason: str) -> Iterator[Passage]:
    """The directions of an end that could not be asked."""
    return (Passage(end.host, peer.host, None, reason) for peer in end.peers)


def reresolve_command(end: EndState, keys: Keys) -> Command:
    """Look up anew where the peers are that are called by name."""
    named = [
        text
        for peer in end.peers
        if peer.called_by_name
        for text in (keys.public[peer.host], peer.called_by_name, peer.calls.rpartition(":")[2])
    ]
    argv = ("sh", "-euc", _RERESOLVE, "skyspan", end.interface, *named)
    return Command(("sudo", "-n", *argv) if end.sudo else argv, timeout_s=30.0)


_CALL_ANEW = """
PATH=$PATH:/usr/sbin:/sbin
if=$1 conf=$2 quick=$3; shift 3
for key in "$@"; do wg set "$if" peer "$key" remove; done
grep -Ev "^($quick) =" "$conf" | WG_ENDPOINT_RESOLUTION_RETRIES=3 wg syncconf "$if" /dev/stdin
"""
"""Forget the session with peers, so that the next packet to them makes one. Arguments: interface, configuration file,
the keys in it that are only for wg-quick, the peers' public keys."""


def call_anew_command(end: EndState, keys: Keys, peers: Sequence[str]) -> Command:
    """Have an end forget its sessions with peers and make new ones."""
    conf = f"/etc/wireguard/{end.interface}.conf"
    public = (keys.public[host] for host in peers)
    argv = ("sh", "-euc", _CALL_ANEW, "skyspan", end.interface, conf, QUICK_ONLY, *public)
    return Command(("sudo", "-n", *argv) if end.sudo else argv, timeout_s=30.0)


def stale_callers(scene: Scene) -> Iterator[tuple[EndState, tuple[str, ...]]]:
    """The ends that hold a session which the other end forgot when it was made anew, and cannot make again as it is
    never the one that calls: an end goes on with a session for 15 s before it doubts it (KEEPALIVE_TIMEOUT and
    REKEY_TIMEOUT in the WireGuard paper, section 6.1)."""
    for end in scene.ends:
        peers = []
        for peer in end.peers:
            if all(one.host != peer.host for one in scene.ends):
                continue
            called = next((one.calls for one in scene.end(peer.host).peers if one.host == end.host), "")
            mine = scene.survey(end.host).peer(scene.keys.public[peer.host])
            theirs = scene.survey(peer.host).peer(scene.keys.public[end.host])
            if not called and mine is not None and theirs is not None and theirs.handshake == NEVER < mine.handshake:
                peers.append(peer.host)
        if peers:
            yield end, tuple(peers)


def repairs_of(ends: Ends) -> tuple[Repair, ...]:
    """The steps there are, gentlest first; never one for two ends at once."""
    named = [end for end in ends if any(peer.called_by_name for peer in end.peers)]
    return (
        *(Repair(RERESOLVE, end.host) for end in named),
        *(Repair(REAPPLY, end.host) for end in ends),
        *(Repair(RESTART, end.host) for end in ends),
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """A link as it is to be and as it was seen, for its diagnosis."""

    ends: Ends
    keys: Keys
    seen: Sequence[Survey]

    def survey(self, host: str) -> Survey:
        """What was seen at `host`."""
        return next(seen for end, seen in zip(self.ends, self.seen, strict=True) if end.host == host)

    def end(self, host: str) -> EndState:
        """The end at `host`."""
        return next(end for end in self.ends if end.host == host)


def local(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Those that need no packet from anywhere to be certain: nobody has to wait for pings that cannot be answered."""
    return tuple(finding for finding in findings if finding.cause in _LOCAL)


def diagnosis(scene: Scene) -> Iterator[Finding]:
    """Every cause that the surveys show, the ones that others follow from first."""
    for end, seen in zip(scene.ends, scene.seen, strict=True):
        yield from _of_interface(end, seen)
    yield from _of_clocks(scene)
    for end in scene.ends:
        for peer in end.peers:
            yield from _of_tunnel(scene, end, peer)


def _of_interface(end: EndState, seen: Survey) -> Iterator[Finding]:
    again = "skyspan up makes it anew; skyspan watch does so by itself"
    if not seen.present:
        yield Finding(Cause.INTERFACE_MISSING, end.host, f"the interface {end.interface} is gone", again)
    elif not seen.up:
        yield Finding(Cause.INTERFACE_MISSING, end.host, f"the interface {end.interface} is down", again)
    elif not seen.public_key:
        yield Finding(Cause.DAEMON_DOWN, end.host, f"nothing answers for the interface {end.interface}", again)
    routed = {route.prefix for route in seen.own_routes}
    missing = [str(net) for net in end.destinations if str(net) not in routed]
    if seen.up and missing:
        yield Finding(
            Cause.ROUTE_MISSING, end.host, f"{', '.join(missing)} is not routed over {end.interface}", "skyspan up"
        )
    for family in end.families:
        if not seen.forwarding.get(family, False):
            yield Finding(
                Cause.FORWARD_DROPPED,
                end.host,
                f"forwarding of IPv{family} is off",
                f"sysctl on {end.host}; skyspan up",
            )
    through = (end.interface, f"what is forwarded from and to {end.interface}")
    yield from docker.findings(end.host, end.families, seen.filters, through)


def _of_clocks(scene: Scene) -> Iterator[Finding]:
    clocks = {end.host: seen.now for end, seen in zip(scene.ends, scene.seen, strict=True)}
    latest = max(clocks.values())
    for host, now in clocks.items():
        if latest - now > _CLOCK_S:
            yield Finding(
                Cause.CLOCK_BEHIND,
                host,
                f"its clock is {latest - now:.0f} s behind: its handshakes may be refused",
                "timedatectl set-ntp true",
            )


def _of_tunnel(scene: Scene, end: EndState, other: PeerState) -> Iterator[Finding]:
    seen, far = scene.survey(end.host), scene.survey(other.host)
    live = seen.peer(scene.keys.public[other.host])
    if not seen.up or not far.up:
        return
    if live is None:
        yield Finding(
            Cause.AUTHENTICATION, end.host, f"{end.interface} does not know {other.host} by its key", "skyspan up"
        )
        return
    lacking = set(other.allowed_ips) - set(live.allowed_ips)
    if lacking:
        yield Finding(
            Cause.ALLOWED_IPS,
            end.host,
            f"AllowedIPs of {other.host} lack {', '.join(sorted(lacking))}: what comes from there is dropped",
            "another peer may have taken them; skyspan up puts them back",
        )
    if live.handshake == NEVER or seen.now - live.handshake >= HANDSHAKE_AGE_S:
        yield _silence(scene, end, other, live.endpoint)
        return
    yield from _of_traffic(scene, end, other)


def _silence(scene: Scene, end: EndState, other: PeerState, endpoint: str) -> Finding:
    far = scene.survey(other.host).peer(scene.keys.public[end.host])
    if other.called_by_name and endpoint:
        return Finding(
            Cause.STALE_ENDPOINT,
            end.host,
            f"no handshake with {other.host} at {endpoint}; {other.called_by_name} may have moved",
            "skyspan watch looks the name up anew",
        )
    if far is not None and far.handshake == NEVER and not other.calls:
        words = f"{other.host} is behind NAT and has never called"
        return Finding(Cause.HANDSHAKE_MISSING, end.host, words, f"is UDP {end.listens} open to it?")
    return Finding(
        Cause.HANDSHAKE_MISSING,
        end.host,
        f"no handshake with {other.host} at {endpoint or other.calls or 'an unknown address'}",
        f"is UDP {other.calls or end.listens} open between them, in cloud security groups too?",
    )


def _of_traffic(scene: Scene, end: EndState, other: PeerState) -> Iterator[Finding]:
    probes = [probe for probe in scene.survey(end.host).probes if probe.address in other.addresses]
    small = [probe for probe in probes if probe.size < end.mtu]
    big = [probe for probe in probes if probe.size >= end.mtu]
    if small and not any(probe.answered for probe in small):
        back = [probe for probe in scene.survey(other.host).probes if probe.address in _addresses(end)]
        one_way = any(probe.answered for probe in back)
        if not one_way and not _arrives(scene, end, other):
            live = scene.survey(end.host).peer(scene.keys.public[other.host])
            where = (live.endpoint if live is not None else "") or other.calls or "an unknown address"
            words = f"what it sends to {other.host} at {where} does not arrive there"
            hint = f"is UDP {other.calls or end.listens} open between them, in cloud security groups too?"
            yield Finding(Cause.UNREACHABLE, end.host, words, hint)
            return
        cause = Cause.RETURN_ROUTE_MISSING if one_way else Cause.FORWARD_DROPPED
        yield Finding(
            cause,
            other.host,
            f"there is a handshake, but {other.host} does not answer {end.host} inside the tunnel",
            f"does another firewall of {other.host} drop what comes from {end.interface}?",
        )
    elif big and not any(probe.answered for probe in big):
        yield Finding(
            Cause.MTU_HOLE,
            end.host,
            f"packets of {end.mtu} bytes to {other.host} vanish, small ones pass",
            "the underlay carries less and does not say so: set a lower `mtu`",
        )


def _arrives(scene: Scene, end: EndState, other: PeerState) -> bool:
    """Whether the other end got anything from this one while both pinged each other."""
    key, far = scene.keys.public[end.host], scene.survey(other.host)
    live = far.peer(key)
    return live is not None and live.received > far.before.get(key, live.received - 1)


def _addresses(end: EndState) -> tuple[str, ...]:
    return tuple(address.partition("/")[0] for address in end.addresses)
