"""What a Headscale and a tailscaled on a stand-in are given: settings, scripts, the places of their files (pure).

Facts of both programs' settings and variables: Headscale 0.29 (config-example.yaml), Tailscale 1.98 (cmd/tailscaled).
"""

from __future__ import annotations

from ipaddress import IPv4Address

from skyspan.rehearsal.spec import Headscale

SERVER_FOLDER = "/var/cache/headscale"
STATE_FOLDER = "/var/lib/tailscale"
"""Where each keeps what it knows. The server's is no part of any deployment; the daemon's own outlives a membership,
as on a real host: the key of the machine stays in it."""

SERVER_PROGRAMS = ("headscale",)
CLIENT_PROGRAMS = ("tailscale", "tailscaled")

_STUN_PORT = 3478

_CONFIG = """server_url: {url}
listen_addr: 0.0.0.0:{port}
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:50443
noise: {{private_key_path: {folder}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server: {{enabled: true, region_id: 999, region_code: skyspan, region_name: relay, verify_clients: true,
    stun_listen_addr: "0.0.0.0:{stun}", private_key_path: {folder}/derp.key,
    automatically_add_embedded_derp_region: true, ipv4: {address}}}
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {folder}/db.sqlite, write_ahead_log: true}}}}
dns: {{magic_dns: true, base_domain: {domain}, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {folder}/headscale.sock
unix_socket_permission: "0770"
logtail: {{enabled: false}}
policy: {{mode: database}}
tuning: {{node_store_batch_size: 1, node_store_batch_timeout: 5ms, batch_change_delay: 10ms}}
"""
"""The last line: a server for many thousands gathers changes for half a second and tells them after most of one."""

SERVE = """
mkdir -p -m 700 "$1"
cd "$1"
cat > config.yaml
pid=/run/headscale.pid
if [ -e $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; then exit; fi
setsid sh -c "headscale -c config.yaml serve >>log 2>&1 </dev/null & echo \\$! > $pid" </dev/null >/dev/null 2>&1
tries=0
until curl -fs -m 1 -o /dev/null "$2/health"; do
  tries=$((tries+1))
  if [ $tries -gt 300 ] || ! kill -0 "$(cat $pid)" 2>/dev/null; then tail -n 5 log >&2; exit 1; fi
  sleep 0.05
done
"""
"""Start the server and wait until it answers. Arguments: its folder, its address; standard input: its settings."""

# A member that logs out is forgotten at once, so that it can come back: Headscale renews no member with tags.
NEW_KEY = """
cd "$1"; shift
headscale -c config.yaml users create rehearsal >/dev/null
exec headscale -c config.yaml preauthkeys create --reusable --ephemeral -e 24h -o json "$@"
"""
"""Make the only user, and a key, which is told as JSON. Arguments: the folder, further options."""

MEMBERS = """
cd "$1"
exec headscale -c config.yaml nodes list -o json
"""
"""List the members as JSON (`null` for none). Argument: the folder."""

SERVICE_FILE = "/etc/init.d/tailscaled"

# TS_DEBUG_USE_DERP_HTTP: the server's relay speaks plain HTTP here.
SERVICE = f"""#!/bin/sh
pid=/run/tailscaled.pid
start() {{
  if [ -e $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; then return; fi
  rm -f $pid
  mkdir -p {STATE_FOLDER} /run/tailscale
  TS_DEBUG_USE_DERP_HTTP=true setsid sh -c 'tailscaled "$@" & echo $! > /run/tailscaled.pid' sh \\
    --no-logs-no-support --state={STATE_FOLDER}/tailscaled.state --socket=/run/tailscale/tailscaled.sock \\
    </dev/null >>/var/log/tailscaled.log 2>&1
}}
stop() {{
  if [ -e $pid ]; then kill "$(cat $pid)" 2>/dev/null; while kill -0 "$(cat $pid)" 2>/dev/null; do sleep 0.1; done; fi
  rm -f $pid
}}
case $1 in start) start;; stop) stop;; restart) stop; start;; *) echo "start, stop or restart" >&2; exit 2;; esac
"""
"""The service of tailscaled, for a machine without systemd."""

START = f"""
cat > {SERVICE_FILE}
chmod 755 {SERVICE_FILE}
{SERVICE_FILE} start
tries=0
until tailscale status --json --peers=false >/dev/null 2>&1; do
  tries=$((tries+1)); [ $tries -lt 200 ] || {{ tail -n 5 /var/log/tailscaled.log >&2; exit 1; }}
  sleep 0.05
done
"""
"""Start tailscaled and wait until it answers; standard input: its service file."""


def server_url(service: Headscale, address: IPv4Address) -> str:
    """What the members call."""
    return f"http://{address}:{service.port}"


def server_settings(service: Headscale, address: IPv4Address) -> str:
    """The whole configuration file of the server on a stand-in with `address`."""
    return _CONFIG.format(
        url=server_url(service, address),
        port=service.port,
        folder=SERVER_FOLDER,
        stun=_STUN_PORT,
        address=address,
        domain=service.domain,
    )


def key_options(service: Headscale) -> tuple[str, ...]:
    """Options of `headscale preauthkeys create`: a key with tags belongs to them, one without to the user."""
    return ("--tags", ",".join(service.tags)) if service.tags else ("--user", "1")
