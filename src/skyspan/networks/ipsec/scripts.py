"""The shell scripts that change a gateway: constants of POSIX sh; every value comes as an argument, secrets by stdin.

Each is safe to be cut off anywhere and run again: files are put in place by rename, the mark of ownership is written
before the first change and removed after the last, a daemon's id is recorded before it becomes the daemon.
"""

from __future__ import annotations

from skyspan.networks.changing import CHANGING, FORWARD, FORWARD_BACK, LINK, MARKING, ROUTE
from skyspan.networks.docker import ADMIT, FORWARDING
from skyspan.networks.guard import CONFIRM, GUARDED, arming
from skyspan.networks.ipsec.daemon import ASK, DAEMON

_KNOWN = (
    r"""
store=/var/lib/skyspan state=/var/lib/skyspan/links/$if daemons=/var/lib/skyspan/ipsec
swanctl=/etc/swanctl settings=/etc/strongswan.d/skyspan.conf
forward6=/proc/sys/net/ipv6/conf/all/forwarding
boot=/etc/systemd/system/skyspan-$if.service
pidfile=/run/skyspan/charon.pid log=/run/charon.skyspan.log socket=/run/charon.vici
"""
    + LINK
    + r"""
place() {
  case $1 in
    conf) echo "$swanctl/conf.d/$if.conf";;
    key) echo "$swanctl/private/$if.pem";;
    cert) echo "$swanctl/x509/$if.pem";;
    ca) echo "$swanctl/x509ca/$if.pem";;
    unit) echo "$boot";;
    *) echo "$state/$1";;
  esac
}
# What Docker's chains are to let through is no interface of the link alone, so it is written down: lines of IP version
# and matches.
docker_matches() { printf '%s\n' "${lines-$(cat "$state/admitted" 2>/dev/null)}" | sed -n "s/^$1 //p"; }
"""
    + ASK
)

PLACES = (
    r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
if=$1 owner=$2 table=$3; shift 3
"""
    + _KNOWN
)
"""What every script starts with. Arguments: name of the link, owner, table, then the script's own."""

_CHANGES = CHANGING + DAEMON

_DOCKER = (
    FORWARDING
    + ADMIT
    + r"""
let_through() { # lines of IP version and matches
  { cat "$state/admitted" 2>/dev/null || :; printf '%s' "$1"; } | sort -u | put "$state/admitted"
  lines=$1; admit_forwarding "4 6"
  lines=$(printf '%s' "$1" | grep -vxF -f - "$state/admitted") || :; admit_forwarding ""
  printf '%s' "$1" | put "$state/admitted"
}
"""
)

_ADDRESSES = r"""
drop_addresses() { # DEVICE ADDRESSES: all that were recorded but these there
  for address in $(cat "$state/addresses" 2>/dev/null); do
    for place in lo "$if"; do
      case "$place  $2 " in "$1 "*" $address "*) continue;; esac
      if ip -o address show dev "$place" 2>/dev/null | grep -qF " $address "; then
        ip address delete "$address" dev "$place"
      fi
    done
  done
}
have_addresses() { # DEVICE ADDRESSES
  drop_addresses "$1" "$2"
  printf '%s\n' $2 | put "$state/addresses"
  for address in $2; do ip address replace "$address" dev "$1"; done
}
"""

_KEEP = r"""    mkdir "$guard/was"
    for name in conf key cert ca session boot unit rules loaded synced addresses; do
      if [ -e "$(place $name)" ]; then cp "$(place $name)" "$guard/was/$name"; fi
    done
    if present; then : > "$guard/was/interface"; fi
"""
"""Everything that says what the link was: after a start of the host, too, nothing else may come back."""

_IN_TIMER = (
    _KNOWN
    + _CHANGES
    + _ADDRESSES
    + r"""
# A daemon that hangs must not keep the host from its firewall.
swanctl() { timeout 4 swanctl "$@"; }
was() { [ -e "$guard/was/$1" ]; }
before() { if was $1; then put "$(place $1)" < "$guard/was/$1"; else rm -f "$(place $1)"; fi; }
"""
)

_BEFORE = r"""
device=lo stood=no stands=no
if was interface; then device=$if stood=yes; fi
if present; then stands=yes; fi
kept=$(cat "$guard/was/addresses" 2>/dev/null | tr '\n' ' ')
# Without a filter, or with another interface, the former connection is none that could go on.
if was conf && ! [ -e "$guard/first" ] && [ $stood = $stands ] && nft -c -f "$guard/table"; then
  : > "$guard/goes-on"
  if ! cmp -s "$guard/was/session" "$(place session)"; then : > "$guard/other-session"; fi
  for name in conf key cert ca; do before $name; done
  have_addresses $device "$kept"
else
  lower & wait $! || :
  if answers; then end_sessions; fi
  drop_addresses lo "$kept"
  before addresses
fi
for name in session boot rules loaded synced; do before $name; done
if [ -e "$guard/other-session" ] && answers; then end_sessions; load; fi
"""

_AFTER = r"""
if ! [ -e "$guard/goes-on" ]; then release_daemon
elif [ -e "$guard/other-session" ] && grep -q 'start_action = start' "$(place conf)"; then call
fi
if ! was unit; then forget_boot; fi
"""

CONVERGE = (
    _CHANGES
    + MARKING
    + _DOCKER
    + _ADDRESSES
    + GUARDED
    + arming(_IN_TIMER, _BEFORE, _AFTER, _KEEP)
    + r"""
families=$1 ruleset=$2 plane=$3 number=$4 mtu=$5 addresses=$6 routes=$7 proto=$8 configuration=$9
shift 9
calls=$1 child=$2 patience=$3 admitted=$4 seconds=$5
export child patience # for the timer
lock
step "claiming the link $if"
there() { present || [ -e "$(place conf)" ]; }
claim there
mkdir -p "$daemons"
printf 'swanctl { load = random }\n' | put "$state/ask"
step "arming the timer that takes the change back"
arm "$seconds" "$proto"
step "writing the files of $if below $swanctl"
rm -rf "$state/arrived"; mkdir "$state/arrived"
awk -v folder="$state/arrived" \
  '/^@skyspan-file /{ if (file) close(file); file = folder "/" $2; printf "" > file; next } { print > file }'
for name in conf key cert ca session boot unit; do
  if [ "$name" = unit ] && ! systemd; then continue; fi
  if [ -e "$state/arrived/$name" ]; then
    if ! cmp -s "$state/arrived/$name" "$(place $name)"; then put "$(place $name)" < "$state/arrived/$name"; fi
  else rm -f "$(place $name)"; fi
done
rm -rf "$state/arrived"
"""
    + FORWARD
    + r"""step "loading the firewall table $table"
printf '%s' "$ruleset" | put "$state/rules"
nft -f "$state/rules"
nft -s list table inet "$table" | digest | put "$state/loaded"
step "having Docker's chains let $if through"
let_through "$admitted"
device=lo
if [ "$plane" = route ]; then
  device=$if
  step "making the interface $if"
  if ! present && ! ip link add dev "$if" type xfrm dev lo if_id "$number"; then exit 91; fi
  ip link set dev "$if" mtu "$mtu" up
elif present; then step "removing the interface $if"; ip link delete dev "$if"; fi
step "setting the addresses of the link"
have_addresses $device "$addresses"
if [ "$plane" = route ]; then
"""
    + ROUTE
    + r"""fi
if systemd; then
  step "enabling the link at boot"
  systemctl daemon-reload
  systemctl enable -q "skyspan-$if.service"
fi
start_daemon
if [ -e "$daemons/unit" ] || [ -e "$daemons/direct" ]; then : > "$daemons/used-by-$if"; fi
rmdir "$daemons" 2>/dev/null || :
if [ "$calls" = yes ] && [ "$(cat "$state/synced" 2>/dev/null)" != "$(cat "$state/session")" ]; then
  step "ending a session of $if that was made with other settings"
  end_sessions
fi
step "loading the connection $if"
load
if [ "$calls" = yes ]; then call; fi
put "$state/synced" < "$state/session"
"""
)
"""Make the end what it is to be: ownership, files, forwarding, firewall, interface, addresses, routes, the daemon and
its connection; on the side that calls, the session too, when there is none or it was made with other files. Unless
confirmed it is taken back: the former connection goes on with its table, addresses and routes, and where there was none
all is as after `LOWER`, without a table. Standard input: the files. Arguments: families, ruleset, plane, number of the
interface, MTU, addresses (by spaces), routes (lines of prefix and source address), their protocol number, settings for
a daemon that has to be started; `yes` on the side that calls, name of the CHILD_SA, seconds that one attempt may take;
what Docker's chains are to let through (lines of IP version and matches), after how many seconds all is taken back.
Exits 90 when the name is taken, 91 when the kernel has no XFRM interface, 93 when loading would take another's
connection out of the daemon, 94 when there is no daemon to start."""

CONFIRMED = GUARDED + CHANGING + CONFIRM
"""End the timer that would take the change back. Exits 96 when it has done so."""

INITIATE = (
    _CHANGES
    + r"""
child=$1 patience=$2
lock
if ! ours; then echo "the link $if is not prepared" >&2; exit 1; fi
step "making the session of $if anew"
if ! answers; then echo "charon does not answer" >&2; exit 1; fi
end_sessions
initiate
"""
)
"""End whatever sessions there are and make one. Arguments: name of the CHILD_SA, seconds that it may take."""

RESTART = (
    _CHANGES
    + r"""
configuration=
lock
if ! ours; then echo "the link $if is not prepared" >&2; exit 1; fi
step "restarting the daemon"
if ! [ -e "$daemons/used-by-$if" ]; then
  if answers; then echo "others started it" >&2; exit 95; fi
  unit || exit 95
  systemctl restart "$unit"
else
  end_daemon
fi
start_daemon
step "loading the connection $if"
load
"""
)
"""Restart the daemon, if it was started for links; one of others that answers is left alone (exit status 95)."""

LOWER = (
    _CHANGES
    + GUARDED
    + r"""
if ! ours; then exit 0; fi
lock
# A timer that still runs takes back what was loaded, and not this.
rm -f "$guard/was/conf"
lower
release_daemon
"""
)
"""End the session and take the connection out of the daemon; firewall and addresses stay."""

REMOVE = (
    _CHANGES
    + MARKING
    + _DOCKER
    + _ADDRESSES
    + GUARDED
    + r"""
begin_removal "$daemons" "$store/links"
disarm
unload
step "removing interface and addresses of $if"
if present; then ip link delete dev "$if" || ! present; fi
drop_addresses lo ""
release_daemon
forget_boot
step "removing the firewall table $table"
if command -v nft >/dev/null; then printf 'table inet %s\ndelete table inet %s\n' "$table" "$table" | nft -f -; fi
step "removing the link's rules from Docker's chains"
if command -v nft >/dev/null; then let_through ""; fi
"""
    + FORWARD_BACK
    + r"""step "removing $state"
rm -rf "$state/arrived"
for name in addresses admitted ask boot loaded rules session synced initiated; do
  rm -f "$state/$name.new" "$state/$name"
done
rm -f "$state/taken-back"
unclaim "$store/links"
"""
)
"""Take everything away, the mark of ownership last; what others still need stays."""
