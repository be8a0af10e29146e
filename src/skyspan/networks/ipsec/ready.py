"""When a link is ready, leg by leg: one session, its packets' keys, pings, a full-size packet, certificates, services.

A session alone proves little: traffic may still be dropped by size, by a firewall or for want of a way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skyspan.contracts.context import Places
from skyspan.networks.ipsec.certificates import DAY_S
from skyspan.networks.ipsec.keys import Keys
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.parse import Survey, agrees, carrier
from skyspan.networks.legs import Leg
from skyspan.networks.proving import ping_legs, service_legs

CERTIFICATE_DAYS = 7
"""A certificate that ends sooner is no longer ready: nobody renewed it in the last third of its life."""

_TOO_LARGE = "the underlay carries less: set a lower `mtu`"


def legs_of(ends: Sequence[EndState], keys: Keys, seen: Sequence[Survey]) -> Iterator[Leg]:
    """What the surveys of both ends say, in the order in which one leg builds on the one before."""
    pairs = list(zip(ends, seen, strict=True))
    for end, survey in pairs:
        yield Leg(f"daemon of {end.host}", "" if survey.answers else "not running")
    for end, survey in pairs:
        yield from _certificate(end, keys, survey)
    for end, survey in pairs:
        yield from _session(end, survey)
    for end, survey in pairs:
        up = carrier(end.plane, end.name, survey)
        if end.interface:
            yield Leg(f"interface {end.interface} of {end.host}", "" if up else "not up")
    for end, survey in pairs:
        for address in end.peer_addresses:
            yield from ping_legs((end.host, end.other), address, end.mtu, survey.probes, _TOO_LARGE)
    for end, survey in pairs:
        if survey.probes and any(probe.answered for probe in survey.probes):
            grown = survey.bytes_in > survey.before
            yield Leg(f"bytes that {end.host} decrypts", "" if grown else "none while pings were answered")


def _certificate(end: EndState, keys: Keys, survey: Survey) -> Iterator[Leg]:
    issued = keys.certificates.get(end.own_id)
    if issued is None:
        return
    left = (issued.ends - survey.now) / DAY_S
    # A life that is short by intent is not late before its last third.
    enough = min(CERTIFICATE_DAYS, (issued.ends - issued.begins) / DAY_S / 3)
    hint = "`skyspan up` renews it; one that is given in the settings has to be replaced there"
    reason = ""
    if survey.now < issued.begins:
        reason, hint = "not valid yet", f"is the clock of {end.host} right?"
    elif left <= 0:
        reason = f"expired {-left:.1f} days ago"
    elif left < enough:
        reason = f"expires in {left:.1f} days"
    yield Leg(f"certificate of {end.host}", reason, hint if reason else "")


def _session(end: EndState, survey: Survey) -> Iterator[Leg]:
    name = f"session of {end.host} with {end.other}"
    where = "are UDP 500 and 4500 open between the gateways, in firewalls and cloud security groups too?"
    standing = survey.established
    if not standing:
        state = survey.sessions[0].state.lower() if survey.sessions else "none"
        yield Leg(name, state, where)
        return
    reason = f"{len(standing)} at once" if len(standing) > 1 else ""
    yield Leg(name, reason, "`skyspan up` ends them and makes one" if reason else "")
    reason = ""
    if not survey.installed:
        reason = "no keys for packets"
    elif not agrees(end.local_selectors, end.remote_selectors, survey):
        first = survey.installed[0]
        reason = f"agreed on {'; '.join(sorted(first.local))} to {'; '.join(sorted(first.remote))} only"
    yield Leg(f"packet keys of {end.host}", reason, "are the proposals and the prefixes of both sides the same?")


async def expected(services: Sequence[str], ends: Sequence[EndState], places: Places) -> tuple[Leg, ...]:
    """Dial every expected service from the gateway of the other side."""
    return await service_legs(services, ends, places, lambda end, _: f"{_back(end)} by {end.other}")


def _back(end: EndState) -> str:
    return ", ".join(str(net) for net in (*end.here, *end.addresses))
