"""The files of an end as text, for swanctl(8) and charon: pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Protocol

from skyspan.model.secret import Secret
from skyspan.networks.ipsec.keys import Keys
from skyspan.networks.ipsec.link import CHILD, IKE_PORT, EndState
from skyspan.networks.looking import digest_of
from skyspan.networks.peers import ROUTE_PROTOCOL

IKE_REKEYS = 4
"""IKE gets new keys that many times more rarely than the packets: 4 h beside 1 h, as is strongSwan's default."""

LATER = 1.3
"""How much later the side that waits would renew keys: more than both sides' chance (a tenth) can make up for."""

LEAST_OVER_S = 60.0
"""How long old keys stay good at least when renewing them fails: several attempts take that long."""

STATE = "/var/lib/skyspan/links"
"""Where a host keeps what belongs to its links, a folder each."""

MARKER = "@skyspan-file "
"""What begins a file in `bundle`; no line of a file begins so."""

DAEMON_SETTINGS = """\
# Made by Skyspan, which started this daemon: removed with the last link.
charon {
  retransmit_timeout = 1.0
  retransmit_base = 1.5
  retransmit_tries = 4
  filelog {
    skyspan {
      path = /run/charon.skyspan.log
      time_format = %s
      ike_name = yes
      flush_line = yes
      default = 1
      enc = 0
      net = 0
      knl = 0
      job = 0
      dmn = 0
      lib = 0
    }
  }
@userspace@}
"""
"""For /etc/strongswan.d, written only where no daemon ran: a dead peer is seen after 13 s, not after 165."""

USERSPACE_SETTINGS = """\
  plugins {
    kernel-libipsec {
      load = yes
    }
  }
"""


class Crypto(Protocol):
    """How the gateways prove themselves and what they agree on; the meaning of each is that of the ipsec settings."""

    @property
    def auth(self) -> str:
        """`psk` or `certificates`."""
        ...

    @property
    def proposals(self) -> tuple[str, ...]:
        """For IKE."""
        ...

    @property
    def esp_proposals(self) -> tuple[str, ...]:
        """For the packets."""
        ...

    @property
    def rekey(self) -> float:
        """Seconds."""
        ...

    @property
    def dpd(self) -> float:
        """Seconds."""
        ...


def daemon_settings(plane: str) -> str:
    """What charon is started with where nobody had started it."""
    return DAEMON_SETTINGS.replace("@userspace@", USERSPACE_SETTINGS if plane == "userspace" else "")


def connection(spec: Crypto, end: EndState) -> str:
    """The connection of one end (swanctl.conf(5)): exactly one side starts it, keeps trying and restarts it."""
    actions = ("start", "start", "restart") if end.initiates else ("none", "none", "clear")
    auth = "psk" if spec.auth == "psk" else "pubkey"
    lines = (
        f"# Made by Skyspan for {end.owner}: what is changed here is overwritten.",
        "connections {",
        f"  {end.name} {{",
        "    version = 2",
        *((f"    remote_addrs = {end.calls}",) if end.calls else ()),
        *((f"    remote_port = {end.port}",) if end.calls and end.port != IKE_PORT else ()),
        f"    proposals = {','.join(spec.proposals)}",
        "    unique = replace",
        "    mobike = no",
        f"    dpd_delay = {_seconds(spec.dpd)}",
        *(f"    {line}" for line in _lifetimes(spec.rekey * IKE_REKEYS, "over_time", waits=not end.initiates)),
        f"    keyingtries = {0 if end.initiates else 1}",
        *_side("local", auth, end.own_id, f"certs = {end.name}.pem" if auth == "pubkey" else ""),
        *_side("remote", auth, end.peer_id, f"cacerts = {end.name}.pem" if auth == "pubkey" else ""),
        "    children {",
        f"      {CHILD} {{",
        f"        local_ts = {','.join(end.local_selectors)}",
        f"        remote_ts = {','.join(end.remote_selectors)}",
        *((f"        if_id_in = {end.number}", f"        if_id_out = {end.number}") if end.plane == "route" else ()),
        f"        esp_proposals = {','.join(spec.esp_proposals)}",
        *(f"        {line}" for line in _lifetimes(spec.rekey, "life_time", waits=not end.initiates)),
        *(f"        {name}_action = {action}" for name, action in zip(("start", "close", "dpd"), actions, strict=True)),
        "      }",
        "    }",
        "  }",
        "}",
        "",
    )
    return "\n".join(lines)


def _side(name: str, auth: str, identity: str, certificates: str) -> Iterator[str]:
    yield f"    {name} {{"
    yield f"      auth = {auth}"
    yield f'      id = "{identity}"'
    if certificates:
        yield f"      {certificates}"
    yield "    }"


def _lifetimes(rekey: float, last: str, *, waits: bool) -> Iterator[str]:
    """When keys are renewed and when they end. The side that waits would begin later, so that both never do at once;
    `last` is counted from the beginning for packets (`life_time`), from the renewal for IKE (`over_time`)."""
    own = rekey * LATER if waits else rekey
    over = max(rekey, LEAST_OVER_S)
    yield f"rekey_time = {_seconds(own)}"
    yield f"{last} = {_seconds(over if last == 'over_time' else own + over)}"
    yield f"rand_time = {round(rekey / 10)}s"


def _seconds(value: float) -> str:
    return f"{max(1, round(value))}s"


def files(spec: Crypto, end: EndState, keys: Keys) -> dict[str, str]:
    """The content of every file of an end, by what it is: `conf`, and with certificates `key`, `cert` and `ca`.

    The shared key is written as base64 (`0s…`), so that no character of it can end the value.
    """
    text = connection(spec, end)
    if keys.psk is not None:
        encoded = base64.b64encode(keys.psk.reveal().encode()).decode()
        text += "\n".join(
            (
                "secrets {",
                f"  ike-{end.name} {{",
                f'    id-1 = "{end.own_id}"',
                f'    id-2 = "{end.peer_id}"',
                f"    secret = 0s{encoded}",
                "  }",
                "}",
                "",
            )
        )
        return {"conf": text}
    issued = keys.certificates[end.own_id]
    return {
        "conf": text,
        "key": _ended(issued.key.reveal()),
        "cert": _ended(issued.certificate),
        "ca": _ended(keys.ca),
    }


def boot_files(end: EndState, addresses: Sequence[str], routes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What brings the link back when the host boots, before a daemon makes a session: `boot` is a script, `unit` the
    service that runs it where there is systemd. `routes` are prefixes with the source address they give."""
    state = f"{STATE}/{end.name}"
    forward = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}
    device = end.name if end.plane == "route" else "lo"
    made = f"ip link add dev {end.name} type xfrm dev lo if_id {end.number}"
    interface = (
        f"ip link show dev {end.name} >/dev/null 2>&1 || {made}",
        f"ip link set dev {end.name} mtu {end.mtu} up",
    )
    script = (
        f"# Made by Skyspan for {end.owner}: what is changed here is overwritten.",
        "set -eu; PATH=$PATH:/usr/sbin:/sbin",
        f"nft -f {state}/rules",
        *(f"echo 1 > {forward[family]}" for family in end.families),
        *(interface if end.plane == "route" else ()),
        *(f"ip address replace {address}/{128 if ':' in address else 32} dev {device}" for address in addresses),
        *(
            f"ip route replace {prefix} dev {end.name} proto {ROUTE_PROTOCOL}{f' src {source}' if source else ''}"
            for prefix, source in routes
        ),
        *_let_through(end),
        "",
    )
    unit = (
        "[Unit]",
        f"Description=Skyspan link {end.owner}",
        # Docker that is up first has the chain that the script looks for.
        "After=network-pre.target docker.service",
        "Before=strongswan.service strongswan-swanctl.service strongswan-starter.service",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"ExecStart=/bin/sh {state}/boot",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    )
    return {"boot": "\n".join(script), "unit": "\n".join(unit)}


def _let_through(end: EndState) -> Iterator[str]:
    """Docker that is up first drops what is forwarded; one that comes later leaves its chain DOCKER-USER as it is."""
    if end.admitted:
        yield (
            "through() { tool=$1; shift; ! $tool -w -n -L DOCKER-USER >/dev/null 2>&1 || "
            '$tool -w -C DOCKER-USER "$@" 2>/dev/null || $tool -w -I DOCKER-USER "$@"; }'
        )
    for version, _, matches in (line.partition(" ") for line in end.admitted):
        tool = "iptables" if version == "4" else "ip6tables"
        yield f"through {tool} {matches} -m comment --comment {end.table} -j ACCEPT"


def bundle(content: dict[str, str]) -> Secret:
    """All files as one stream, each after a line with its name."""
    return Secret("".join(f"{MARKER}{name}\n{text}" for name, text in content.items()))


def joined(contents: Sequence[dict[str, str]]) -> str:
    """A line that stands for both ends' files: it says what a session was made with."""
    text = "\n".join(f"{name}\n{text}" for content in contents for name, text in sorted(content.items()))
    return digest_of(text) + "\n"


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"
