"""The configuration of an end as text, for wg(8) and wg-quick(8): pure."""

from __future__ import annotations

from skyspan.model.secret import Secret
from skyspan.networks.wireguard.keys import Keys
from skyspan.networks.wireguard.link import ROUTE_PROTOCOL, EndState

FOLDER = "/etc/wireguard"
"""Where wg-quick looks for configurations."""

NO_PSK = "A" * 43 + "="
"""32 zero bytes: no shared key. `wg syncconf` leaves what is not named alone, so it is always named."""


def config_text(end: EndState, keys: Keys) -> Secret:
    """The whole file. `Table = off` keeps wg-quick from routing; the hooks put up the firewall before the first packet
    and the routes after, so that `wg-quick up` after a reboot gives the same link."""
    psk = keys.psk.reveal() if keys.psk else NO_PSK
    forward = {4: "net.ipv4.ip_forward=1", 6: "net.ipv6.conf.all.forwarding=1"}
    lines = (
        f"# Made by Skyspan for {end.owner}: what is changed here is overwritten.",
        "[Interface]",
        f"PrivateKey = {keys.private[end.host].reveal().strip()}",
        f"ListenPort = {end.port}",
        *(f"Address = {address}" for address in end.addresses),
        f"MTU = {end.mtu}",
        "Table = off",
        *(f"PreUp = sysctl -q -w {forward[family]}" for family in end.families),
        f"PreUp = nft -f {FOLDER}/{end.interface}.nft",
        *(f"PostUp = ip route replace {net} dev %i proto {ROUTE_PROTOCOL}" for net in end.destinations),
        "",
        "[Peer]",
        f"PublicKey = {keys.public[end.other]}",
        f"PresharedKey = {psk.strip()}",
        f"AllowedIPs = {', '.join(end.allowed_ips)}",
        *((f"Endpoint = {end.calls}",) if end.calls else ()),
        f"PersistentKeepalive = {end.keepalive or 'off'}",
        "",
    )
    return Secret("\n".join(lines))


QUICK_ONLY = "Address|MTU|Table|PreUp|PostUp"
"""The keys that wg-quick understands and wg does not, as they occur above."""
