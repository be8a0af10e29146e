"""The cloud's two ends of a VPN connection as strongSwan and BIRD run them: their files and scripts (pure).

Like the cloud they wait for their customer, take whatever selectors it asks for, look whether it is there, and are told
by BGP or by static routes what is behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

from skyspan.rehearsal.cloud.vpn import HOLD_S, Tunnel, Vpn

TABLE = 210
"""The routing table that says what is behind the customer gateway, for what comes from the VPC."""

CHARON = ("/usr/lib/ipsec/charon", "/usr/libexec/ipsec/charon", "/usr/libexec/strongswan/charon")
"""Where distributions have strongSwan's daemon."""

_FOLDER = "/run/cloud-vpn"

_PROPOSALS = "aes256gcm16-prfsha512-ecp384,aes256-sha256-ecp256,aes256-sha256-modp2048,aes128-sha256-modp2048"
_ESP_PROPOSALS = "aes256gcm16-ecp384,aes256-sha256-ecp256,aes256-sha256-modp2048,aes128-sha256-modp2048"
_OLD = ",aes128-sha1-modp2048"
"""AWS takes SHA-1 too."""

_DAEMON = f"""\
charon {{
  install_routes = no
  retransmit_timeout = 1.0
  retransmit_base = 1.0
  retransmit_tries = 3
  filelog {{
    cloud {{
      path = {_FOLDER}/charon.log
      flush_line = yes
      default = 1
    }}
  }}
  load_modular = yes
  plugins {{
    include /etc/strongswan.d/charon/*.conf
    vici {{
      socket = unix://{_FOLDER}/charon.vici
    }}
    kernel-libipsec {{
%kernel     load = no
%userspace     load = yes
    }}
  }}
}}
swanctl {{
  load = pem pkcs1 x509 revocation constraints pubkey openssl random
}}
"""
"""strongswan.conf. In all of these texts a line that begins with `%PLANE ` is for that one only."""

START = f"""
folder={_FOLDER}
mkdir -p -m 700 $folder; cd $folder
[ "$3" = bgp ] && {{
  ip xfrm state add src 127.0.0.1 dst 127.0.0.9 proto esp spi 0x999 mode tunnel \\
    aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128 &&
    ip xfrm state delete src 127.0.0.1 dst 127.0.0.9 proto esp spi 0x999 &&
    ip link add tunnel1 type xfrm dev lo if_id 1 && ip link add tunnel2 type xfrm dev lo if_id 2
}} >/dev/null 2>&1 && plane=kernel || plane=userspace
echo $plane > plane
fit() {{ sed -e "s/^%$plane //" -e '/^%/d'; }}
fit > swanctl.conf
printf %s "$1" | fit > strongswan.conf
printf %s "$2" | fit > bird.conf
shift 3
for charon in {" ".join(CHARON)}; do if [ -x $charon ]; then break; fi; done
export STRONGSWAN_CONF=$folder/strongswan.conf
setsid sh -c '"$1" </dev/null >/dev/null 2>&1 & echo $! > charon.pid' sh $charon
ask() {{ swanctl "$@" --uri unix://$folder/charon.vici; }}
tries=0
until ask --stats >/dev/null 2>&1; do
  tries=$((tries+1)); [ $tries -lt 200 ] || {{ tail -n 5 charon.log >&2; exit 1; }}
  sleep 0.05
done
ask --load-creds --noprompt --file swanctl.conf >/dev/null
ask --load-conns --file swanctl.conf >/dev/null
number=0
while [ $# -gt 0 ]; do
  number=$((number+1)) interface=ipsec0
  if [ $plane = kernel ]; then interface=tunnel$number; ip link set $interface mtu 1400 up; fi
  ip address add "$1" peer "$2" dev $interface
  shift 2
done
bird -c bird.conf -s bird.ctl -P bird.pid </dev/null >/dev/null
"""
"""Start both ends, which are not there. Arguments: strongswan.conf, bird.conf, `bgp` or `static`, then each tunnel's
addresses, the own one and the customer's; standard input: swanctl.conf.

With BGP each tunnel has an interface of its own where the kernel can. Without it nothing would take routes from the
one that is down, so both share libipsec's, which knows.
"""

ROUTES = f"""
cd {_FOLDER}
plane=$(cat plane)
sed -e "s/^%$plane //" -e '/^%/d' > bird.conf
birdc -s bird.ctl configure >/dev/null
"""
"""Tell BIRD what is to be told and routed now; standard input: bird.conf."""

STOP = f"""
if [ ! -d {_FOLDER} ]; then exit; fi
cd {_FOLDER}
for daemon in bird charon; do
  pid=$(cat $daemon.pid 2>/dev/null) || continue
  kill "$pid" 2>/dev/null || continue
  tries=0
  # One that has ended may stay until its parent looks, without any words.
  while [ -n "$(tr -d '\\0' < "/proc/$pid/cmdline" 2>/dev/null)" ]; do
    tries=$((tries+1)); if [ $tries -gt 100 ]; then kill -9 "$pid" 2>/dev/null || :; fi
    sleep 0.05
  done
done
for interface in tunnel1 tunnel2; do ip link delete $interface 2>/dev/null || :; done
rm -rf {_FOLDER}
for name in pid ctl enfy lkp dck wlst; do rm -f /run/charon.$name; done
"""
"""End both and leave nothing."""


def start_arguments(vpn: Vpn) -> tuple[str, ...]:
    """What `START` is given besides the keys."""
    addresses = (str(address) for tunnel in vpn.tunnels for address in (tunnel.cloud, tunnel.customer))
    return (_DAEMON, routing(vpn), "static" if vpn.static else "bgp", *addresses)


def connections(vpn: Vpn) -> str:
    """swanctl.conf: a connection and a key for each tunnel."""
    numbered = tuple(enumerate(vpn.tunnels, 1))
    found = [line for number, tunnel in numbered for line in _connection(vpn, number, tunnel)]
    keys = [line for number, tunnel in numbered for line in _secret(vpn, number, tunnel)]
    return "\n".join(["connections {", *found, "}", "secrets {", *keys, "}", ""])


def _connection(vpn: Vpn, number: int, tunnel: Tunnel) -> Iterator[str]:
    yield f"""\
  tunnel{number} {{
    version = 2
    local_addrs = {tunnel.outside}
    remote_addrs = %any
    proposals = {_PROPOSALS}{_OLD}
    unique = replace
    dpd_delay = {max(1, tunnel.dpd_s // 3)}s
    rekey_time = 28800s
    local {{
      auth = psk
      id = {tunnel.outside}
    }}
    remote {{
      auth = psk
      id = {vpn.customer}
    }}
    children {{
      vpc {{
        local_ts = 0.0.0.0/0
        remote_ts = 0.0.0.0/0
%kernel         if_id_in = {number}
%kernel         if_id_out = {number}
        esp_proposals = {_ESP_PROPOSALS}{_OLD}
        rekey_time = 3600s
        dpd_action = clear
      }}
    }}
  }}"""


def _secret(vpn: Vpn, number: int, tunnel: Tunnel) -> Iterator[str]:
    yield f"  ike-{number} {{"
    yield f"    id-1 = {vpn.customer}"
    yield f"    id-2 = {tunnel.outside}"
    yield f'    secret = "{tunnel.key}"'
    yield "  }"


def routing(vpn: Vpn, more: Sequence[IPv4Network] = ()) -> str:
    """bird.conf: the VPC and `more` are told to the customer, and what it tells is routed; without BGP, its static
    routes."""
    announced = (*((vpn.vpc,) if vpn.vpc else ()), *more)
    source = "RTS_STATIC" if vpn.static else "RTS_BGP"
    lines = [
        f"router id {vpn.tunnels[0].outside};",
        "protocol device { }",
        f"protocol kernel {{ kernel table {TABLE}; ipv4 {{ export where source = {source}; }}; }}",
    ]
    if vpn.static:
        routes = (f'  route {net} via "ipsec0";' for net in vpn.routes)
        return "\n".join([*lines, "protocol static customer {", "  ipv4;", *routes, "}", ""])
    lines += ["protocol static vpc {", "  ipv4;", *(f"  route {net} unreachable;" for net in announced), "}"]
    for number, tunnel in enumerate(vpn.tunnels, 1):
        lines += _session(vpn, number, tunnel)
    return "\n".join([*lines, ""])


def _session(vpn: Vpn, number: int, tunnel: Tunnel) -> tuple[str, ...]:
    return (
        f"protocol bgp tunnel{number} {{",
        f"  local {tunnel.cloud} as {vpn.asn};",
        f"  neighbor {tunnel.customer} as {vpn.customer_asn};",
        "  direct;",
        f'%kernel   interface "tunnel{number}";',
        '%userspace   interface "ipsec0";',
        f"  hold time {HOLD_S};",
        "  connect retry time 1;",
        "  error wait time 1, 2;",
        '  ipv4 { import limit 100 action restart; import all; export where proto = "vpc"; next hop self; };',
        "}",
    )
