"""The shell scripts that run on a member: constants of POSIX sh; every value comes as an argument, the key by stdin.

Each is safe to be cut off anywhere and run again: the mark of ownership and the record of what was there before are
written before the first change, and removed after the last.
"""

from __future__ import annotations

from skyspan.networks.changing import CHANGING, FORWARD, FORWARD_BACK

LED = r"""
led() {
  way=$(ip -o route get 100.100.100.100 2>/dev/null || :)
  case $way in *" table 52 "*) return;; esac
  own=$(tailscale ip -4 2>/dev/null) || return 0
  device=$(ip -o address show to "$own" | awk 'NR == 1 {print $2}')
  case $device in "") return;; esac
  case $way in *" dev $device "*) ;; *) return 1;; esac
}
"""
"""`led`: whether what the kernel sends to members finds its way to the daemon; it does not while the interface is down
or has lost its routes, which the daemon does not notice. Without an interface nobody is led, and none is missed. Table
52 (wgengine/router) always leads to the service address 100.100.100.100 (net/tsaddr)."""

PLACES = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
owner=$1; shift
store=/var/lib/skyspan state=/var/lib/skyspan/tailnet
# As whose the forwarding is recorded that is switched on.
if=tailnet
list=/etc/apt/sources.list.d/tailscale.list keyring=/usr/share/keyrings/tailscale-archive-keyring.gpg
present() { command -v tailscale >/dev/null && command -v tailscaled >/dev/null; }
ours() { [ -e "$state/owner" ] && [ "$(cat "$state/owner")" = "$owner" ]; }
forward6=/proc/sys/net/ipv6/conf/all/forwarding
forwarding() { if [ "$1" = 4 ]; then echo /proc/sys/net/ipv4/ip_forward; else echo "$forward6"; fi; }
status() { timeout 10 tailscale status --json --peers=false; }
manager() {
  if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then echo systemd
  elif [ -x /etc/init.d/tailscaled ]; then echo init
  else echo none; fi
}
"""
"""What every script starts with. Argument: the owner, then the script's own."""

_CHANGES = (
    CHANGING
    + r"""claim() {
  step "claiming the tailnet membership of this host"
  if [ -e "$state/owner" ] && ! ours; then echo "it belongs to $(cat "$state/owner")" >&2; exit 90; fi
  mkdir -p "$state"
  ours || printf '%s\n' "$owner" | put "$state/owner"
}
unclaim() {
  rm -f "$state/owner" "$state/owner.new"
  rmdir "$state" "$store" 2>/dev/null || :
}
# What it starts must not inherit the lock.
service() {
  case $(manager) in
    systemd) systemctl "$1" tailscaled 9<&-;;
    init) /etc/init.d/tailscaled "$1" 9<&-;;
    *) return 1;;
  esac
}
daemon() {
  if status >/dev/null 2>&1; then return; fi
  step "starting tailscaled by the service manager ($(manager))"
  service start >&2 || service restart >&2 || :
  tries=0
  until status >/dev/null 2>&1; do
    tries=$((tries+1))
    if [ "$(manager)" = none ] || [ $tries -gt 50 ]; then status >/dev/null || :; exit 93; fi
    sleep 0.2
  done
}
# A key of the node is there while it is logged in, and after a logout that its server has not heard of.
logged_in() { status 2>/dev/null | grep -q '"HaveNodeKey": true'; }
logout() {
  if ! logged_in; then return; fi
  step "logging out of the tailnet"
  for try in 1 2 3; do
    if said=$(timeout 30 tailscale logout 2>&1); then return; fi
    echo "$said" >&2
    case $said in
      # What a logout leaves that the server did not hear of; the daemon finds its key again when it starts.
      *"no nodekey to log out"*) service restart >&2 || break; daemon;;
    esac
    # A connection that was just given up is the daemon's own to make again.
    sleep 1
  done
  echo "the control server does not confirm it" >&2
  exit 95
}
"""
    + "forward() {\n"
    + FORWARD
    + "}\nunforward() {\n"
    + FORWARD_BACK
    + "}\n"
)

INSTALL = (
    _CHANGES
    + r"""
method=$1 from=$2 id=$3 codename=$4
export DEBIAN_FRONTEND=noninteractive
fetch() {
  step "fetching $1"
  if command -v curl >/dev/null; then curl -fsSL --retry 2 --connect-timeout 15 --max-time 180 -o "$2" "$1" 9<&-
  elif command -v wget >/dev/null; then wget -q -T 60 -O "$2" "$1" 9<&-
  else echo "neither curl nor wget is there" >&2; exit 1; fi
}
lock
claim
if ! [ -e "$state/installed" ]; then
  {
    present || echo package
    [ -e "$list" ] || echo "$list"
    [ -e "$keyring" ] || echo "$keyring"
  } | put "$state/installed"
fi
if [ "$method" = package ]; then
  mkdir -p "${keyring%/*}" "${list%/*}"
  if ! [ -e "$keyring" ] || grep -qxF "$keyring" "$state/installed"; then
    fetch "$from/$id/$codename.noarmor.gpg" "$keyring.new"
    chmod 644 "$keyring.new"; mv -f "$keyring.new" "$keyring"
  fi
  if ! [ -e "$list" ] || grep -qxF "$list" "$state/installed"; then
    echo "deb [signed-by=$keyring] $from/$id $codename main" > "$list.new"
    chmod 644 "$list.new"; mv -f "$list.new" "$list"
  fi
  step "reading the package source"
  apt-get -q -o DPkg::Lock::Timeout=300 -o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=- \
    -o APT::Get::List-Cleanup=0 update >&2 9<&-
  step "installing the package tailscale"
  apt-get -q -y -o DPkg::Lock::Timeout=300 install tailscale >&2 9<&-
else
  script=$state/install.sh
  fetch "$from" "$script"
  step "running the installation script"
  sh "$script" >&2 9<&-
  rm -f "$script"
fi
if [ "$(manager)" = systemd ]; then step "enabling tailscaled"; systemctl enable --now tailscaled >&2 9<&-; fi
step "looking for tailscale"
present
"""
)
"""Put Tailscale there, or a newer one. Arguments: method, where from, the system's id and codename. Exits 90 when the
host's membership is somebody else's."""

CHANGE = (
    _CHANGES
    + r"""
action=$1 within=$2 families=$3 prior=$4; shift 4
lock
claim
case $action in
  join|rejoin) ;;
  *) if [ -n "$prior" ] && ! [ -e "$state/prior" ]; then printf '%s\n' "$prior" | put "$state/prior"; fi;;
esac
daemon
if [ -n "$families" ]; then forward; else unforward; fi
failed() {
  status 2>/dev/null || :
  if ! logged_in; then
    # Or it would go on trying, and its next error be taken for that of the next key.
    timeout 20 tailscale down </dev/null >&2 || :
    if [ -n "$prior" ]; then printf '%s\n' "$prior" | xargs tailscale set >&2 || :; fi
    rm -f "$state/joined"
    if ! [ -e "$state/installed" ]; then unforward; unclaim; fi
  fi
  exit 94
}
case $action in
  rejoin) logout; action=join;;
esac
case $action in
  join)
    step "joining the tailnet"
    : > "$state/joined"
    # Through a pipe, as standard input may be a socket, which cannot be opened by name.
    cat | tailscale up --auth-key=file:/dev/stdin "--timeout=${within}s" --reset "$@" >&2 || failed;;
  raise)
    step "bringing Tailscale up"
    # No flag at all: it then only starts to run again, with the settings it had.
    timeout "$within" tailscale up </dev/null >&2 || failed;;
  restart)
    step "restarting tailscaled by the service manager ($(manager))"
    service restart >&2 || exit 93
    daemon;;
esac
if [ "$action" != join ] && [ $# -gt 0 ]; then
  step "changing settings: $*"
  tailscale set "$@" </dev/null >&2
fi
"""
)
"""Make the host a member. Standard input: the key, for `join` and `rejoin`. Arguments: action (join, rejoin, raise,
restart, set), seconds it may take, address families to forward, flags of `tailscale set` that bring back what was there
before (at once when it cannot join, else when it is left; none where this has joined already), and the flags to set.

Exits 90 when it is somebody else's, 93 without a daemon, 94 with the status on standard output when it does not come
up, 95 when the control server does not hear the logout."""

LOWER = (
    _CHANGES
    + r"""
if ours && [ -e "$state/joined" ]; then
  lock
  daemon
  step "taking Tailscale down"
  tailscale down </dev/null >&2
  echo down
fi
"""
)
"""Suspend a membership of ours and say `down`; others go on."""

RESTART = (
    _CHANGES
    + r"""
lock
step "restarting tailscaled by the service manager ($(manager))"
service restart >&2 || exit 93
daemon
rmdir "$store" 2>/dev/null || :
"""
)
"""Restart the daemon. Exits 93 when there is no service manager, or it does not answer after that."""

REMOVE = (
    _CHANGES
    + r"""
if ! [ -d "$store" ]; then exit 0; fi
lock
if ! ours; then
  # Cut off before it was claimed: nothing but empty folders can be there.
  if ! [ -e "$state/owner" ]; then unclaim; fi
  exit 0
fi
if present; then
  if [ -e "$state/joined" ]; then daemon; logout
  elif [ -e "$state/prior" ]; then
    daemon
    step "bringing back the settings of before"
    xargs tailscale set < "$state/prior" >&2
  fi
fi
rm -f "$state/joined" "$state/prior" "$state/prior.new"
unforward
if [ -e "$state/installed" ]; then
  step "removing the package tailscale"
  if grep -qx package "$state/installed" && dpkg -s tailscale >/dev/null 2>&1; then
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 purge tailscale >&2 9<&-
  fi
  step "removing the package source"
  for file in "$list" "$keyring"; do
    if grep -qxF "$file" "$state/installed"; then rm -f "$file" "$file.new"; fi
  done
fi
step "removing $state"
rm -f "$state/installed" "$state/installed.new" "$state/install.sh"
unclaim
"""
)
"""Leave the tailnet where we joined it, bring back what was there before, the mark of ownership last."""

SURVEY = (
    LED
    + r"""
echo @os
if [ -r /etc/os-release ]; then (. /etc/os-release; echo "${ID:-unknown} ${VERSION_CODENAME:--}"); fi
echo @tools
for tool in tailscale tailscaled apt-get flock timeout; do
  if command -v $tool >/dev/null; then echo "$tool yes"; else echo "$tool no"; fi
done
echo @manager; manager
echo @time; date +%s
echo @owner; if [ -e "$state/owner" ]; then cat "$state/owner"; fi
echo @marks; for mark in joined prior installed; do if [ -e "$state/$mark" ]; then echo $mark; fi; done
echo @forward
for family in 4 6; do
  file=$(forwarding $family)
  if [ -e "$file" ]; then echo "$family $(cat "$file")"; fi
done
if present; then
  echo @version; tailscale version --json 2>/dev/null || tailscale version | head -n 1
  echo @status
  exec 3>&1
  # Asked once: the tool waits some seconds for a daemon that does not answer.
  if trouble=$(status 2>&1 >&3); then
    echo
    if [ "${1:-}" = peers ]; then echo @peers; timeout 10 tailscale status --json 2>/dev/null || :; echo; fi
    echo @prefs; timeout 10 tailscale debug prefs 2>/dev/null || :
    echo @led
    # It may be on its way up.
    for again in 1 2 3; do if led; then echo yes; break; fi; sleep 0.3; done
  else
    printf '@trouble\n%s\n' "$trouble"
  fi
fi
"""
)
"""Look at everything at once. Argument: `peers` to hear of the other members too."""

PING = (
    LED
    + r"""
if ! led; then echo "what it sends to members finds no way into the tunnel: $way"; exit 1; fi
timeout 5 tailscale ping --tsmp -c 1 "--timeout=$1" "$2" 2>&1
"""
)
"""Send one packet through the tunnel to a member and wait for its answer. Arguments: how long, whom (a short name or an
address). It is answered by the other tailscaled, inside the tunnel, so no firewall and no service matters; as it is
sent by the daemon itself, the kernel's way to it is looked at beside."""
