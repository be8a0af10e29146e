"""Why a link carries no traffic, in words, from what was seen on both ends: pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from skyspan.contracts.watch import Cause, Finding
from skyspan.networks import docker
from skyspan.networks.ipsec.certificates import DAY_S
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.parse import Survey, agrees, carrier


@dataclass(frozen=True, slots=True)
class Sign:
    """What a line of the daemon's log means. `certain` when the line itself names the reason."""

    cause: Cause
    words: str
    hint: str = ""
    certain: bool = True


_KEYS = "the shared keys differ: `skyspan up` writes the same on both sides"
_CERTIFICATES = "the certificate and the CA of both sides have to belong together: `skyspan up` writes them anew"

SIGNS: Mapping[str, Sign | None] = MappingProxyType(
    {
        r"shared keys? for .* MAC mismatched": Sign(
            Cause.AUTHENTICATION, "the other side has another shared key", _KEYS
        ),
        r"no shared key found": Sign(Cause.AUTHENTICATION, "there is no shared key for the other side", _KEYS),
        r"(subject|issuer) certificate invalid": Sign(
            Cause.EXPIRED, "a certificate is expired or not valid yet", "`skyspan up` renews it; are the clocks right?"
        ),
        r"no trusted .* public key found|no issuer certificate found|constraint check failed": Sign(
            Cause.AUTHENTICATION, "the other side's certificate is not trusted", _CERTIFICATES
        ),
        r"no private key found|no .*private key": Sign(
            Cause.AUTHENTICATION, "there is no private key for its own certificate", _CERTIFICATES
        ),
        r"received AUTHENTICATION_FAILED": Sign(
            Cause.AUTHENTICATION, "the other side refuses its authentication", _KEYS, certain=False
        ),
        r"no matching peer config found": Sign(
            Cause.AUTHENTICATION, "it knows no connection with the identity of the other side", "are the `id`s right?"
        ),
        r"received NO_PROPOSAL_CHOSEN|no acceptable proposal found": Sign(
            Cause.UNKNOWN, "the sides have no proposal in common", "compare `proposals` and `esp_proposals`"
        ),
        r"received TS_UNACCEPTABLE|traffic selectors .* inacceptable": Sign(
            Cause.PREFIX_MISSING,
            "the sides do not agree on the prefixes",
            "are the prefixes of both sides the same?",
            certain=False,
        ),
        r"unable to install IPsec policies": Sign(
            Cause.UNKNOWN,
            "it could not set the link's policies",
            "see `journalctl -u strongswan`: is the kernel able to?",
        ),
        r"unable to resolve|no address found": Sign(
            Cause.STALE_ENDPOINT, "the name of the other side does not resolve", "correct its `endpoint`"
        ),
        r"giving up after|peer not responding|sending retransmit|retransmit \d+ of request": Sign(
            Cause.UNREACHABLE,
            "the other side does not answer",
            "are UDP 500 and 4500 open between the gateways, in firewalls and cloud security groups too?",
            certain=False,
        ),
        r"CHILD_SA .* established|initiate completed successfully": None,
    }
)
"""What charon 5.x and 6.x say, by regular expression; None for what ends the search: after that all was well."""


def sign_of(log: str, name: str) -> Sign | None:
    """What the last telling line about the connection `name` means; None when there is none, or all was well then."""
    uncertain: Sign | None = None
    for line in reversed(log.splitlines()):
        whose = re.search(r"<([^|<> ]+)\|\d+>", line)
        if whose is not None and whose[1] != name:
            continue
        for pattern, sign in SIGNS.items():
            if re.search(pattern, line) is None:
                continue
            if sign is None or sign.certain:
                return sign if sign is not None or uncertain is None else uncertain
            uncertain = uncertain or sign
    return uncertain


def findings(look: Look) -> tuple[Finding, ...]:
    """Every cause that shows, those first that others follow from; empty when nothing is wrong."""
    pairs = tuple(zip(look.ends, look.seen, strict=True))
    if basic := own_trouble(look):
        return basic
    sessions = list(_sessions(pairs))
    if sessions:
        return tuple(sessions)
    return tuple(finding for end, seen in pairs for finding in _traffic(end, pairs, seen))


def own_trouble(look: Look) -> tuple[Finding, ...]:
    """What the gateways know of themselves, without a packet from anywhere; all else follows from it."""
    return tuple(
        finding for end, seen in zip(look.ends, look.seen, strict=True) for finding in _basics(end, look, seen)
    )


def _basics(end: EndState, look: Look, seen: Survey) -> Iterator[Finding]:
    if not seen.answers:
        yield Finding(Cause.DAEMON_DOWN, end.host, "charon does not run", "`skyspan up` starts it")
        return
    if end.name not in seen.connections:
        words = f"charon runs without the connection {end.name}"
        yield Finding(Cause.INTERFACE_MISSING, end.host, words, "`skyspan up` loads it")
    if end.plane == "route" and not carrier(end.plane, end.name, seen):
        words = f"the interface {end.name} is missing or down"
        yield Finding(Cause.INTERFACE_MISSING, end.host, words, "`skyspan up` makes it")
    issued = look.keys.certificates.get(end.own_id)
    if issued is not None and seen.now > issued.ends:
        days = (seen.now - issued.ends) / DAY_S
        words = f"its certificate expired {days:.1f} days ago"
        yield Finding(Cause.EXPIRED, end.host, words, "`skyspan up` renews it")
    elif issued is not None and seen.now < issued.begins:
        words = f"its clock is {issued.begins - seen.now:.0f} s before its certificate begins"
        yield Finding(Cause.CLOCK_BEHIND, end.host, words, "timedatectl set-ntp true")


def _sessions(pairs: Sequence[tuple[EndState, Survey]]) -> Iterator[Finding]:
    for end, seen in pairs:
        if len(seen.established) > 1:
            words = f"there are {len(seen.established)} sessions with {end.other} at once"
            yield Finding(Cause.DUPLICATE_SAS, end.host, words, "`skyspan up` ends them and makes one")
    for end, seen in pairs:
        if seen.installed and not agrees(end.local_selectors, end.remote_selectors, seen):
            first = seen.installed[0]
            missing = sorted({*end.local_selectors, *end.remote_selectors} - {*first.local, *first.remote})
            words = f"the sides did not agree on {', '.join(missing)}"
            yield Finding(Cause.PREFIX_MISSING, end.host, words, "are the prefixes of both sides the same?")
    without = [(end, seen) for end, seen in pairs if not seen.established or not seen.installed]
    if not without:
        return
    signs = [(end, sign_of(seen.log, end.name)) for end, seen in pairs]
    told = [(end, sign) for end, sign in signs if sign is not None]
    told.sort(key=lambda pair: not pair[1].certain)
    if told:
        end, sign = told[0]
        yield Finding(sign.cause, end.host, sign.words, sign.hint)
        return
    end, seen = without[0]
    if len(without) < len(pairs):
        words = f"it no longer knows the session that {end.other} still holds"
    else:
        words = f"there is no session with {end.other}"
    hint = "are UDP 500 and 4500 open between the gateways?"
    yield Finding(Cause.HANDSHAKE_MISSING, end.host, words, hint)


def astray(end: EndState, seen: Survey) -> tuple[str, ...]:
    """The ways to the other end's tunnel addresses that do not lead into the tunnel, as `ip route get` says them."""
    return tuple(way for way in seen.way if end.interface and f"dev {end.interface} " not in f"{way} ")


def _traffic(end: EndState, pairs: Sequence[tuple[EndState, Survey]], seen: Survey) -> Iterator[Finding]:
    other = next((survey for peer, survey in pairs if peer.host != end.host), None)
    small = [probe for probe in seen.probes if probe.size < end.mtu]
    big = [probe for probe in seen.probes if probe.size >= end.mtu]
    lost = astray(end, seen)
    if lost:
        words = f"what is for {end.other} is not sent into the tunnel: {lost[0].strip()}"
        yield Finding(Cause.ROUTE_MISSING, end.host, words, "`skyspan up` routes it")
    elif small and not all(probe.answered for probe in small):
        arrives = other is not None and other.bytes_in > other.before
        cause = Cause.RETURN_ROUTE_MISSING if arrives else Cause.UNREACHABLE
        words = (
            f"its packets reach {end.other}, but no answer comes back"
            if arrives
            else f"its packets do not reach {end.other} although the session stands"
        )
        yield Finding(cause, end.host, words, f"does a firewall of {end.other} drop them, or ESP on the way?")
    elif not all(probe.answered for probe in big):
        words = f"packets of {end.mtu} bytes to {end.other} are lost, small ones pass"
        yield Finding(Cause.MTU_HOLE, end.host, words, "the underlay carries less: set a lower `mtu`")
    for family in seen.held(end.families):
        yield Finding(Cause.FORWARD_DROPPED, end.host, f"forwarding of IPv{family} is off", "`skyspan up` sets it")
    if seen.digests.get("table") != seen.digests.get("loaded"):
        words = f"the firewall table {end.table} was changed or removed"
        yield Finding(Cause.FORWARD_DROPPED, end.host, words, "`skyspan up` loads it")
    through = (f"the link {end.name}", f"{', '.join(map(str, end.there))} in both directions")
    yield from docker.findings(end.host, end.admitted_families, seen.filters, through)
