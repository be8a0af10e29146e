"""A machine of a `GatewayWorld` that plays the cloud's two ends of a site-to-site VPN, with real daemons.

Like the cloud it waits for its customer, takes any selectors within its own, and looks whether the customer is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from skyspan.testing.gateway_world import GatewayWorld, Start

FACTS: Mapping[str, Any] = MappingProxyType(
    {
        "id": "vpn-0123456789abcdef0",
        "tunnel1_address": "198.18.2.2",
        "tunnel1_preshared_key": "first.key.for_this.test",
        "tunnel1_cgw_inside_address": "169.254.10.2",
        "tunnel1_vgw_inside_address": "169.254.10.1",
        "tunnel1_bgp_asn": "64512",
        "tunnel1_bgp_holdtime": 30,
        "tunnel1_inside_cidr": "169.254.10.0/30",
        "tunnel2_address": "198.18.2.3",
        "tunnel2_preshared_key": "second.key.for_this.test",
        "tunnel2_cgw_inside_address": "169.254.20.2",
        "tunnel2_vgw_inside_address": "169.254.20.1",
        "tunnel2_bgp_asn": "64512",
        "tunnel2_bgp_holdtime": 30,
        "vgw_telemetry": [],
        "transit_gateway_id": None,
    }
)
"""As an aws_vpn_connection names them, with attributes that are no facts. The keys are made for tests alone."""

_ENDS = """
for number in 1 2; do ip address add 169.254.${number}0.1/32 dev lo; done
ip address add 198.18.2.3/24 dev eth0
# libipsec takes no prefix in which its host has no address.
ip address add 10.7.0.1/32 dev lo
echo 1 > /proc/sys/net/ipv4/ip_forward
cat > /etc/strongswan.d/cloud.conf <<'EOF'
charon {
  retransmit_timeout = 1.0
  retransmit_base = 1.0
  retransmit_tries = 3
  filelog {
    cloud {
      path = /run/cloud.log
      flush_line = yes
      default = 1
    }
  }
  plugins {
    kernel-libipsec {
      load = yes
    }
  }
}
EOF
connection() {
  cat <<EOF
  tunnel$1 {
    version = 2
    local_addrs = $2
    remote_addrs = %any
    proposals = aes256-sha256-ecp256,aes128-sha256-modp2048
    unique = replace
    dpd_delay = 2s
    rekey_time = 28800s
    local {
      auth = psk
      id = $2
    }
    remote {
      auth = psk
      id = 198.18.1.2
    }
    children {
      vpc {
        local_ts = 0.0.0.0/0
        remote_ts = 0.0.0.0/0
        esp_proposals = aes256-sha256-ecp256,aes128-sha256-modp2048
        rekey_time = 3600s
        dpd_action = clear
      }
    }
  }
EOF
}
secret() { printf '  ike-%s {\\n    id-1 = 198.18.1.2\\n    id-2 = %s\\n    secret = "%s"\\n  }\\n' "$1" "$2" "$3"; }
{
  echo "connections {"; connection 1 198.18.2.2; connection 2 198.18.2.3; echo "}"
  echo "secrets {"; secret 1 198.18.2.2 "$1"; secret 2 198.18.2.3 "$2"; echo "}"
} > /etc/swanctl/conf.d/cloud.conf
setsid /usr/lib/ipsec/charon </dev/null >/dev/null 2>&1 &
until swanctl --stats >/dev/null 2>&1; do sleep 0.05; done
swanctl --load-creds --noprompt >/dev/null 2>&1
swanctl --load-conns >/dev/null 2>&1
"""

_SPEAKER = """
for number in 1 2; do
  ip address add 169.254.${number}0.1 peer 169.254.${number}0.2/32 dev ipsec0
done
cat > /run/bird.conf <<'EOF'
router id 198.18.2.2;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; }; metric 900; }
protocol static { ipv4; route 10.2.0.0/24 unreachable; route 10.99.0.0/16 unreachable; }
template bgp tunnel {
  local as 64512;
  direct;
  interface "ipsec0";
  hold time 30;
  connect retry time 1;
  error wait time 1, 2;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
protocol bgp tunnel1 from tunnel { source address 169.254.10.1; neighbor 169.254.10.2 as 65000; }
protocol bgp tunnel2 from tunnel { source address 169.254.20.1; neighbor 169.254.20.2 as 65000; }
EOF
bird -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid </dev/null >/dev/null 2>&1
"""


async def make_world(here: Start) -> GatewayWorld:
    """`site-gw` (198.18.1.2, behind it `site` 10.1.0.10) and `cloud-gw` with both tunnel ends of `FACTS` (behind it
    `cloud` 10.2.0.10), which routes no link-local addresses."""
    world = await GatewayWorld.make(here, ("site", "cloud"))
    try:
        keys = (FACTS[f"tunnel{number}_preshared_key"] for number in (1, 2))
        await world.machines["cloud-gw"].sh(_ENDS, *keys)
        await world.machines["cloud"].sh("ip route add blackhole 169.254.0.0/16")
    except BaseException:
        await world.close()
        raise
    return world


async def announce(world: GatewayWorld) -> None:
    """The cloud speaks BGP through both tunnels (AS 64512): it announces 10.2.0.0/24, and 10.99.0.0/16 unasked."""
    await world.machines["cloud-gw"].sh(_SPEAKER)
