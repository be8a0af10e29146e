"""The configuration of an end as text, for wg(8) and wg-quick(8): pure."""

from __future__ import annotations

from collections.abc import Iterator

from skyspan.model.secret import Secret
from skyspan.networks.peers import ROUTE_PROTOCOL
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import EndState, PeerState

FOLDER = "/etc/wireguard"
"""Where wg-quick looks for configurations."""

NO_PSK = "A" * 43 + "="
"""32 zero bytes: no shared key. `wg syncconf` leaves what is not named alone, so it is always named."""


def config_text(end: EndState, keys: Keys) -> Secret:
    """The whole file. `Table = off` keeps wg-quick from routing; the hooks put up the firewall before the first packet
    and the routes after, so that `wg-quick up` after a reboot gives the same link."""
    forward = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    lines = (
        f"# Made by Skyspan for {end.owner}: what is changed here is overwritten.",
        "[Interface]",
        f"PrivateKey = {keys.private[end.host].reveal().strip()}",
        f"ListenPort = {end.port}",
        *(f"Address = {address}" for address in end.addresses),
        f"MTU = {end.mtu}",
        "Table = off",
        *(f"PreUp = {_switched_on(forward[family])}" for family in end.families),
        f"PreUp = nft -f {FOLDER}/{end.interface}.nft",
        *(f"PreUp = {_admitted(end, tool)}" for tool in _filters(end)),
        *(f"PostUp = ip route replace {net} dev %i proto {ROUTE_PROTOCOL}" for net in end.destinations),
        "",
        *(line for peer in end.peers for line in _peer(end, peer, keys)),
    )
    return Secret("\n".join(lines))


def _switched_on(setting: str) -> str:
    """In a container /proc/sys may be read-only, and right already."""
    return f"sysctl -n {setting} | grep -qx 1 || sysctl -q -w {setting}=1"


def _filters(end: EndState) -> Iterator[str]:
    tools = {4: "iptables", 6: "ip6tables"}
    return (tools[family] for family in end.families)


def _admitted(end: EndState, tool: str) -> str:
    """Docker that is up first drops what is forwarded; one that comes later leaves its chain DOCKER-USER as it is."""
    rule = f'"$way" %i -m comment --comment {end.table} -j ACCEPT'
    insert = f"{tool} -w -C DOCKER-USER {rule} 2>/dev/null || {tool} -w -I DOCKER-USER {rule}"
    return f"! {tool} -w -n -L DOCKER-USER >/dev/null 2>&1 || for way in -i -o; do {insert}; done"


def _peer(end: EndState, peer: PeerState, keys: Keys) -> Iterator[str]:
    psk = keys.psk(end.host, peer.host)
    yield "[Peer]"
    yield f"# {peer.host}"
    yield f"PublicKey = {keys.public[peer.host]}"
    yield f"PresharedKey = {psk.reveal().strip() if psk else NO_PSK}"
    yield f"AllowedIPs = {', '.join(peer.allowed_ips)}"
    if peer.calls:
        yield f"Endpoint = {peer.calls}"
    yield f"PersistentKeepalive = {peer.keepalive or 'off'}"
    yield ""


QUICK_ONLY = "Address|MTU|Table|PreUp|PostUp"
"""The keys that wg-quick understands and wg does not, as they occur above."""
