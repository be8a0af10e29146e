"""A tailnet in network namespaces: a Headscale server, and hosts with a tailscaled each, on one wire. Needs root.

Every host has files of its own under /etc, /run and /var/lib, so that packages, daemons and resolvers stay inside it,
and a service manager of the simplest kind: /etc/init.d/tailscaled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command
from skyspan.testing.gateway_world import GatewayWorld, Machine, Start, together

DOMAIN = "tail.skyspan.test"
SERVER = "http://10.98.0.1:8080"
"""At a private address: a plain HTTP server elsewhere is asked by HTTPS when it was asked shortly before (tailscale,
control/ts2021)."""

_WIRE = """
ip link add wire type bridge; ip link set wire addrgenmode none up
number=1
for pid; do
  ip link add "to-$number" type veth peer name eth0 netns "$pid"
  ip link set "to-$number" master wire; ip link set "to-$number" addrgenmode none up
  number=$((number+1))
done
"""

_END = """
ip address add "10.98.0.$1/24" dev eth0
ip link set eth0 addrgenmode none up
"""

_PRIVATE = """
mkdir -p /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
rm -f /etc/resolv.conf; echo "nameserver 10.98.0.1" > /etc/resolv.conf
"""

_SERVICE = """
cat > /etc/init.d/tailscaled <<'END'
#!/bin/sh
pid=/run/tailscaled.pid
# TS_DEBUG_USE_DERP_HTTP: the server's relay speaks plain HTTP here.
start() {
  if [ -e $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; then return; fi
  rm -f $pid
  mkdir -p /var/lib/tailscale /run/tailscale
  TS_DEBUG_USE_DERP_HTTP=true setsid sh -c 'tailscaled "$@" & echo $! > /run/tailscaled.pid; wait' sh \\
    --no-logs-no-support --state=/var/lib/tailscale/tailscaled.state \\
    --socket=/run/tailscale/tailscaled.sock "--tun=TUN" \\
    </dev/null >>/run/tailscaled.log 2>&1 &
  tries=0; until [ -e $pid ] || [ $tries -gt 100 ]; do sleep 0.05; tries=$((tries+1)); done
}
stop() {
  if [ -e $pid ]; then kill "$(cat $pid)" 2>/dev/null; while kill -0 "$(cat $pid)" 2>/dev/null; do sleep 0.1; done; fi
  rm -f $pid
}
case $1 in start) start;; stop) stop;; restart) stop; start;; esac
END
sed -i "s/TUN/$1/" /etc/init.d/tailscaled
chmod 755 /etc/init.d/tailscaled
"""

_CONFIG = f"""
server_url: {SERVER}
listen_addr: 10.98.0.1:8080
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:50443
noise: {{private_key_path: /run/headscale/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server: {{enabled: true, region_id: 999, region_code: skyspan, region_name: relay, verify_clients: true,
    stun_listen_addr: "10.98.0.1:3478", private_key_path: /run/headscale/derp.key,
    automatically_add_embedded_derp_region: true, ipv4: 10.98.0.1}}
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: /run/headscale/db.sqlite, write_ahead_log: true}}}}
dns: {{magic_dns: true, base_domain: {DOMAIN}, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: /run/headscale/headscale.sock
unix_socket_permission: "0770"
logtail: {{enabled: false}}
policy: {{mode: database}}
tuning: {{node_store_batch_size: 1, node_store_batch_timeout: 5ms, batch_change_delay: 10ms}}
"""
"""The last line: a server for many thousands gathers changes for half a second and tells them after most of one."""

_HEADSCALE = """
mkdir -p /run/headscale
cat > /run/headscale/config.yaml
"""

_SERVE = """
cd /run/headscale
headscale -c config.yaml serve >>log 2>&1 &
echo $! > pid
tries=0
until curl -fs -m 1 -o /dev/null "$1/health"; do
  tries=$((tries+1)); [ $tries -lt 200 ] || { tail -n 5 log >&2; exit 1; }
  sleep 0.05
done
echo ready
wait
"""

_STATE = """
echo "# links"; ip -o link show | awk '{print $2}' | sed 's/@[^ ]*//' | sort
echo "# forwarding"; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
echo "# files"; find /etc/apt /var/lib/skyspan /usr/share/keyrings -mindepth 1 2>/dev/null | sort
if tailscale status --json --peers=false > /run/status 2>/dev/null; then
  echo "# member"; grep -e '"BackendState"' -e '"HaveNodeKey"' /run/status || :
  echo "# settings"; tailscale debug prefs | grep -e '"RouteAll"' -e '"CorpDNS"' -e '"AdvertiseRoutes": \\[' || :
fi
"""


@dataclass
class TailnetWorld(GatewayWorld):
    """`control` runs Headscale at 10.98.0.1; the hosts are 10.98.0.2 and up, in the order of their names."""

    names: tuple[str, ...] = ()

    @classmethod
    async def make_tailnet(
        cls, here: Start, names: Sequence[str] = ("app-1", "db-1"), *, tun: str = "ts0", daemons: bool = True
    ) -> TailnetWorld:
        """Make the namespaces, start the server and (with `daemons`) a tailscaled on every host; nobody has joined."""
        world = cls({}, [], names=tuple(names))
        try:
            every = ("wire", "control", *names)
            made = dict(zip(every, await together(world._boot(name, here) for name in every), strict=True))
            world.machines = MappingProxyType(made)
            ends = ("control", *names)
            await made["wire"].wire(_WIRE, *(str(made[name].pid) for name in ends))
            await together(world._place(number, name) for number, name in enumerate(ends, 1))
            await together((world._found(), *(world._serve_on(name, tun, daemons) for name in names)))
        except BaseException:
            await world.close()
            raise
        return world

    async def _place(self, number: int, name: str) -> None:
        await self.machines[name].wire(_END, str(number))
        await self.machines[name].sh(_PRIVATE)

    async def _found(self) -> None:
        await self.machines["control"].sh(_HEADSCALE.replace("cat >", f"printf '%s' '{_CONFIG}' >"))
        await self.serve()
        await self.headscale("users", "create", "u")

    async def _serve_on(self, name: str, tun: str, daemons: bool) -> None:
        await self.machines[name].sh(_SERVICE, tun)
        if daemons:
            await self.machines[name].sh("/etc/init.d/tailscaled start")
            await self.answers(name)

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts as a composition names them."""
        return {name: Host(name, f"10.98.0.{number}") for number, name in enumerate(self.names, 2)}

    @property
    def places(self) -> dict[str, Machine]:
        """The hosts as places."""
        return {name: self.machines[name] for name in self.names}

    async def serve(self) -> None:
        """Start the server; it keeps what it knows over its end."""
        control = self.machines["control"]
        await self._start(control.here, control.inside(Command(("sh", "-euc", _SERVE, "sh", SERVER))))

    async def stop_serving(self) -> None:
        """End the server."""
        await self.machines["control"].sh('kill "$(cat /run/headscale/pid)"')

    async def headscale(self, *arguments: str) -> str:
        """What the server's own command says."""
        return await self.machines["control"].sh('cd /run/headscale; exec headscale -c config.yaml "$@"', *arguments)

    async def key(self, *options: str) -> str:
        """A new auth key: reusable, for an hour, unless the options say otherwise."""
        options = options or ("--reusable", "-e", "1h")
        owner = () if "--tags" in options else ("--user", "1")
        said = await self.headscale("preauthkeys", "create", *owner, *options, "-o", "json")
        return str(json.loads(said)["key"])

    async def nodes(self) -> list[dict[str, object]]:
        """The members as the server knows them."""
        found: list[dict[str, object]] = json.loads(await self.headscale("nodes", "list", "-o", "json")) or []
        return found

    async def answers(self, name: str, within_s: float = 15.0) -> None:
        """Wait until the host's tailscaled answers."""
        script = "until tailscale status --json --peers=false >/dev/null 2>&1; do sleep 0.1; done"
        await self.machines[name].sh(
            f"timeout {within_s:g} sh -c '{script}' || {{ cat /run/tailscaled.log >&2; exit 1; }}"
        )

    async def status(self, name: str) -> dict[str, object]:
        """What the host's daemon says."""
        found: dict[str, object] = json.loads(await self.machines[name].sh("tailscale status --json"))
        return found

    async def state(self) -> dict[str, str]:
        """Links, forwarding, files and membership of every host, to compare."""
        said = await asyncio.gather(*(machine.sh(_STATE) for machine in self.places.values()))
        return dict(zip(self.places, said, strict=True))


def tools_path(folder: Path) -> str:
    """A PATH with our own built tools first."""
    return f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
