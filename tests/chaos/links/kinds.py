"""The faults of each kind of link, each with the bound for its repair, and the examples that they are made in.

A bound holds from the fault, or from its end where only the world can end it. WireGuard is to be repaired within 5
seconds of what befalls a daemon or a way, IPsec within 10. What takes longer has a reason: both ends are repaired one
after the other; BGP has to find its neighbour again (`SESSION_S`); tailscaled to start and be found; an SSH connection
to be given up (3 keepalives) and made anew (a pause of up to 5 s); a forwarder that answers nobody to be waited for,
twice; a host to boot.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import MappingProxyType

from tests.chaos.links import cloud
from tests.chaos.links.breaking import (
    between,
    cut,
    forwarder,
    killed,
    port_taken,
    port_taken_there,
    rebound,
    scripted,
    served,
    sshd_sessions,
    told,
)
from tests.chaos.links.fault import Fault, Kind, Way
from tests.chaos.links.stand_ins import HERE

_FORGET_PEER = 'for key in $(wg show "$1" peers); do wg set "$1" peer "$key" remove; done'
_ASTRAY = 'for key in $(wg show "$1" peers); do wg set "$1" peer "$key" endpoint 192.0.2.77:9; done'
_NARROWED = 'for key in $(wg show "$1" peers); do wg set "$1" peer "$key" allowed-ips 192.0.2.78/32; done'
_UNROUTED = 'ip route show dev "$1" proto 241 | while read -r to rest; do ip route delete "$to" dev "$1"; done'

_HELD = Fault("forwarding off", scripted("echo 0 > /proc/sys/net/ipv4/ip_forward"), 10, ("forward-dropped",))

_WIREGUARD = (
    Fault("daemon killed", killed("wireguard-go"), 5, ("interface-missing", "daemon-down")),
    Fault(
        "way cut", cut("office", "north"), 5, ("handshake-missing", "stale-endpoint", "unreachable", "forward-dropped")
    ),
    Fault("interface deleted", scripted('ip link delete "$1"'), 5, ("interface-missing",)),
    Fault("interface down", scripted('ip link set "$1" down'), 5, ("interface-missing",)),
    Fault("peers forgotten", scripted(_FORGET_PEER), 10, ("authentication",)),
    Fault("routes removed", scripted(_UNROUTED), 10, ("route-missing",)),
    Fault("AllowedIPs lost", scripted(_NARROWED), 10, ("allowed-ips",)),
    Fault("endpoints astray", scripted(_ASTRAY, hosts=2), 12, heals=True),
    Fault("both daemons killed", killed("wireguard-go", hosts=2), 10, ("interface-missing", "daemon-down")),
    _HELD,
    Fault("packets lost", told("loss", "office", "north", "20", undo=("restore", "office", "north")), 5, heals=True),
    Fault("NAT bound anew", rebound, 10, heals=True),
    Fault("host rebooted", told("reboot", "north-gw"), 20),
    Fault(
        "host renumbered",
        told("renumber", "north-gw", "203.0.113.77", undo=("renumber", "north-gw", "203.0.113.10")),
        15,
        heals=True,
    ),
)

_OURS = "swanctl --list-conns --raw | grep -o 'sky-[a-z0-9-]*' | sort -u"
_TERMINATED = f'for name in $({_OURS}); do swanctl --terminate --ike "$name" --force >/dev/null; done'
_UNLOADED = f"""
names=$({_OURS}); mkdir /run/away; mv /etc/swanctl/conf.d/sky-*.conf /run/away
swanctl --load-conns >/dev/null; mv /run/away/* /etc/swanctl/conf.d; rmdir /run/away
for name in $names; do swanctl --terminate --ike "$name" --force >/dev/null || :; done
"""
_IPSEC = (
    Fault("charon killed", killed("charon", "charon-systemd"), 10, ("daemon-down",)),
    Fault("way cut", cut("east", "west"), 10, ("unreachable", "handshake-missing")),
    Fault("session ended", scripted(_TERMINATED), 10, heals=True),
    Fault("connection unloaded", scripted(_UNLOADED), 10, ("interface-missing",)),
    _HELD,
    Fault("both charons killed", killed("charon", "charon-systemd", hosts=2), 15, ("daemon-down",)),
)

_BGP = (
    Fault("BIRD killed", killed("bird"), 10, ("daemon-down",)),
    Fault("way cut", cut("east", "west"), 15),
    Fault("wireguard-go killed", killed("wireguard-go"), 15, ("interface-missing", "daemon-down")),
    Fault("FRR killed", killed("bgpd", "zebra", "bfdd", "staticd", "watchfrr"), 10, ("daemon-down",)),
    Fault("bgpd killed", killed("bgpd"), 10, ("daemon-down",)),
)

# UDP between the members themselves; the relay is on another stand-in.
_CLOSED = """
nft add table ip broken
nft add chain ip broken in '{ type filter hook input priority 0; }'
nft add chain ip broken out '{ type filter hook output priority 0; }'
nft add rule ip broken in ip saddr 10.99.0.10 meta l4proto udp drop
nft add rule ip broken out ip daddr 10.99.0.10 meta l4proto udp drop
"""
_TAILSCALE = (
    Fault("tailscaled killed", killed("tailscaled"), 20, ("daemon-down",)),
    Fault(
        "server down",
        told("kill", "tailnet-ctl", "headscale", undo=("start", "tailnet-ctl", "headscale")),
        1,
        heals=True,
        quiet=True,
    ),
    Fault("way cut", cut("office", "cloud"), 15),
    Fault("taken down", scripted("tailscale down"), 15, ("interface-missing",)),
    Fault("both daemons killed", killed("tailscaled", hosts=2), 25, ("daemon-down",)),
    Fault("direct way closed", between("app-1", _CLOSED, "nft delete table ip broken"), 15, heals=True, evaded=True),
    Fault("host rebooted", told("reboot", "db-1"), 25, heals=True),
    Fault("interface down", scripted("ip link set tailscale0 down"), 15, ("interface-missing",)),
    Fault("interface deleted", scripted("ip link delete tailscale0"), 20, ("interface-missing", "daemon-down")),
    Fault("routes removed", scripted("ip route flush table 52"), 15, ("interface-missing",)),
)

_SSH_TUNNEL = (
    Fault("forwarder killed", forwarder(signal.SIGKILL), 5, ("daemon-down",)),
    Fault("way cut", cut("control", "lab"), 12),
    Fault("connections reset", sshd_sessions("lab-gw", signal.SIGKILL), 3, heals=True),
    # What it leads to is gone: nobody here can mend that, and the other forwards go on.
    Fault("target down", served("mirror", "recorder.py", "web"), 3, ("service-down",), spared=True),
    Fault("forwarder stopped", forwarder(signal.SIGSTOP), 15, ("daemon-down",)),
    Fault("sshd frozen", sshd_sessions("lab-gw", signal.SIGSTOP, signal.SIGCONT), 12),
    Fault("port taken here", port_taken(18080), 5, ("daemon-down", "port-taken")),
    Fault("port taken there", port_taken_there("lab-gw", 19000, "control", "lab"), 12, ("port-taken",), spared=True),
    Fault("target's way cut", cut("control", "cloud"), 12, spared=True),
    Fault("host rebooted", told("reboot", "lab-gw"), 20),
)

_CARRYING_CUT = """
nft add table ip broken
nft add chain ip broken in '{ type filter hook input priority 0; }'
nft add chain ip broken out '{ type filter hook output priority 0; }'
for outside in $(awk '$1 == "local_addrs" {print $3}' /run/cloud-vpn/swanctl.conf); do
  nft add rule ip broken in ip daddr $outside counter
done
sleep 0.5
outside=$(nft list chain ip broken in | awk '$2 == "daddr" {print $6, $3}' | sort -n | tail -n 1 | cut -d' ' -f2)
nft add rule ip broken in ip daddr $outside drop
nft add rule ip broken out ip saddr $outside drop
"""
_AWS_VPN = (
    Fault("charon killed", killed("charon", "charon-systemd"), 10, ("daemon-down",)),
    Fault("BIRD killed", killed("bird"), 10, ("daemon-down",)),
    Fault("sessions ended", scripted(_TERMINATED), 10, heals=True),
    # What comes back moves when the cloud notices: its dead peer detection of 30 s takes 10 and three tries.
    Fault("tunnel cut", between("vpn", _CARRYING_CUT, "nft delete table ip broken"), 20, ("unreachable",), evaded=True),
    Fault("way cut", cut("cloud", "lab"), 15),
    Fault("connections unloaded", scripted(_UNLOADED), 15, ("interface-missing",)),
    _HELD,
    Fault("host rebooted", told("reboot", "lab-gw"), 30),
    Fault("cloud's end rebooted", told("reboot", "vpn"), 30, heals=True),
)

_SIDES = (Way("east-app", "10.2.0.10"), Way("west-app", "10.1.0.10"))
_CONSOLE, _MIRROR = "127.0.0.1:18080", "127.0.0.1:19000"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "wireguard": Kind(
            "hub",
            ("office-gw", "north-gw", "south-gw"),
            (
                Way("office-app", "10.2.0.10"),
                Way("north-app", "10.1.0.10"),
                Way("office-app", "10.3.0.10"),
                Way("south-app", "10.1.0.10"),
            ),
            _WIREGUARD,
        ),
        "ipsec": Kind("ipsec", ("east-gw", "west-gw"), _SIDES, _IPSEC),
        "bgp": Kind(
            "bgp",
            ("east-gw", "west-gw"),
            _SIDES,
            _BGP,
            # All ways by BGP alone.
            changes=(("allow: [icmp, tcp/179, udp/3784]\n", "allow: [icmp, tcp/179, udp/3784]\n      routes: none\n"),),
        ),
        "tailscale": Kind(
            "tailnet",
            ("app-1", "db-1"),
            (Way("app-1", "db-1"), Way("db-1", "app-1")),
            _TAILSCALE,
            only="tailnet",
            address="tailscale ip -4",
        ),
        "ssh-tunnel": Kind(
            "tunnel",
            ("lab-gw",),
            (
                Way(HERE, _CONSOLE, "tcp"),
                Way("lab-gw", _MIRROR, "tcp"),
                Way(HERE, "10.2.0.10:8080", "socks", "127.0.0.1:11080"),
            ),
            _SSH_TUNNEL,
            only="ports",
            gap_s=0.5,
        ),
        "aws-vpn": Kind(
            "aws-vpn",
            ("lab-gw",),
            (Way("lab-svc", "app"), Way("app", "192.168.77.10")),
            _AWS_VPN,
            compose=cloud.made,
            address=cloud.ADDRESS,
        ),
    }
)
