"""The shell scripts that change a gateway: constants of POSIX sh; every value comes as an argument, secrets by stdin.

Each is safe to be cut off anywhere and run again: files are put in place by rename, the mark of ownership is written
before the first change and removed after the last, a daemon's id is recorded before it becomes the daemon.
"""

from __future__ import annotations

from skyspan.networks.changing import CHANGING

PLACES = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
if=$1 owner=$2 table=$3; shift 3
store=/var/lib/skyspan state=/var/lib/skyspan/links/$if daemons=/var/lib/skyspan/ipsec
swanctl=/etc/swanctl settings=/etc/strongswan.d/skyspan.conf
forward6=/proc/sys/net/ipv6/conf/all/forwarding
boot=/etc/systemd/system/skyspan-$if.service
pidfile=/run/skyspan/charon.pid log=/run/charon.skyspan.log socket=/run/charon.vici
forwarding() { if [ "$1" = 4 ]; then echo /proc/sys/net/ipv4/ip_forward; else echo "$forward6"; fi; }
present() { ip link show dev "$if" >/dev/null 2>&1; }
ours() { [ -e "$state/owner" ] && [ "$(cat "$state/owner")" = "$owner" ]; }
digest() { sha256sum | cut -d' ' -f1; }
place() {
  case $1 in
    conf) echo "$swanctl/conf.d/$if.conf";;
    key) echo "$swanctl/private/$if.pem";;
    cert) echo "$swanctl/x509/$if.pem";;
    ca) echo "$swanctl/x509ca/$if.pem";;
    session | boot) echo "$state/$1";;
    unit) echo "$boot";;
  esac
}
# Without a cipher loaded, which asking does not need, swanctl takes a quarter of the time.
ask() {
  if [ -S "$socket" ] && [ -e "$state/ask" ]; then STRONGSWAN_CONF=$state/ask swanctl "$@"; else swanctl "$@"; fi
}
answers() { ask --stats >/dev/null 2>&1; }
loaded() { ask --list-conns --raw 2>/dev/null | sed -n 's/^list-conn event {\([^ ]*\) {.*/\1/p'; }
sessions() { ask --list-sas --ike "$if" --raw 2>/dev/null | grep '^list-sa event' || :; }
"""
"""What every script starts with. Arguments: name of the link, owner, table, then the script's own."""

_CHANGES = (
    CHANGING
    + r"""daemon() {
  pid=$(cat "$pidfile" 2>/dev/null) || return 1
  tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q charon
}
# Said before, as files that are left out of the configuration are taken out of the daemon with it.
refuse_foreign() {
  for name in $(loaded); do
    if [ "$name" != "$if" ] && ! grep -rqsE "(^|[[:space:]{}])$name[[:space:]]*\{" "$swanctl"; then
      echo "the connection $name is loaded and in none of the files below $swanctl" >&2; exit 93
    fi
  done
}
load() {
  refuse_foreign
  said=$(swanctl --load-creds --noprompt 2>&1) || { echo "$said" | grep -v "^plugin '" >&2; exit 1; }
  said=$(swanctl --load-conns 2>&1) || { echo "$said" | grep -v "^plugin '" >&2; exit 1; }
}
systemd() { [ -d /run/systemd/system ]; }
unit() {
  if ! systemd; then return 1; fi
  for unit in strongswan strongswan-swanctl strongswan-starter; do
    if systemctl cat "$unit.service" >/dev/null 2>&1; then return 0; fi
  done
  return 1
}
program() {
  for program in /usr/lib/ipsec/charon /usr/libexec/ipsec/charon /usr/libexec/strongswan/charon; do
    if [ -x $program ]; then return; fi
  done
  program=$(command -v charon-systemd) || exit 94
}
start_daemon() {
  if answers; then return; fi
  mkdir -p "$daemons"
  if [ -n "${configuration:-}" ]; then printf '%s' "$configuration" | put "$settings"; fi
  if unit; then
    step "starting $unit.service"
    printf '%s\n' "$unit" | put "$daemons/unit"
    if ! systemctl is-enabled -q "$unit"; then : > "$daemons/enabled"; systemctl enable -q "$unit"; fi
    systemctl restart "$unit"
  elif ! daemon; then
    program
    step "starting $program"
    other=$(cat /run/charon.pid 2>/dev/null) || other=
    if [ -n "$other" ] && grep -qs charon "/proc/$other/cmdline"; then
      echo "a charon of others runs and does not answer: it hangs, or lacks the plugin vici" >&2; exit 1
    fi
    : > "$daemons/direct"
    mkdir -p /run/skyspan
    rm -f /run/charon.pid "$socket" "$log"
    setsid sh -c 'echo $$ > "$1.new"; mv -f "$1.new" "$1"; exec "$2"' \
      skyspan "$pidfile" "$program" </dev/null >/dev/null 2>&1 9<&- &
  fi
  tries=0
  until answers; do
    tries=$((tries+1))
    if [ $tries -gt 100 ]; then tail -n 15 "$log" >&2 2>/dev/null || :; exit 1; fi
    sleep 0.05
  done
}
end_daemon() {
  if [ -e "$daemons/unit" ]; then
    unit=$(cat "$daemons/unit")
    systemctl stop "$unit"
    if [ -e "$daemons/enabled" ]; then systemctl disable -q "$unit"; fi
  elif daemon; then
    kill "$pid" 2>/dev/null || :
    tries=0
    while daemon && [ $tries -lt 60 ]; do sleep 0.05; tries=$((tries+1)); done
    if daemon; then kill -9 "$pid" 2>/dev/null || :; sleep 0.1; fi
  fi
}
# What a daemon that was killed leaves behind, and nobody else's, as none runs any more.
release_daemon() {
  rm -f "$daemons/used-by-$if"
  if ! [ -d "$daemons" ] || ls "$daemons" | grep -q '^used-by-'; then return; fi
  step "ending the daemon that was started for links"
  end_daemon
  if [ -e "$daemons/direct" ]; then
    rm -f "$pidfile" "$pidfile.new" "$log"
    if ! answers; then
      for name in pid vici ctl enfy lkp dck wlst; do rm -f "/run/charon.$name"; done
      for family in 4 6; do
        if ip -$family rule show priority 220 2>/dev/null | grep -q 220; then
          ip -$family rule delete priority 220 table 220 || :
        fi
      done
    fi
    rmdir /run/skyspan 2>/dev/null || :
  fi
  rm -f "$settings" "$settings.new" "$daemons/unit" "$daemons/unit.new" "$daemons/enabled" "$daemons/direct"
  rmdir "$daemons" 2>/dev/null || :
}
unload() {
  step "unloading the connection $if"
  for name in conf key cert ca; do rm -f "$(place $name)" "$(place $name).new"; done
  if ! answers; then return; fi
  if loaded | grep -qxF "$if"; then load; fi
  if [ -n "$(sessions)" ]; then timeout 3 swanctl --terminate --ike "$if" --force >/dev/null 2>&1 || :; fi
}
"""
)

_SESSION = r"""
end_sessions() {
  if [ -n "$(sessions)" ]; then timeout 3 swanctl --terminate --ike "$if" --force >/dev/null 2>&1 || :; fi
  tries=0
  while [ -n "$(sessions)" ] && [ $tries -lt 20 ]; do sleep 0.05; tries=$((tries+1)); done
}
initiate() {
  swanctl --initiate --ike "$if" --child "$child" --timeout "$patience" 2>&1 |
    grep -v "^plugin '" > "$state/initiated" || :
}
"""

CONVERGE = (
    _CHANGES
    + _SESSION
    + r"""
families=$1 ruleset=$2 plane=$3 number=$4 mtu=$5 addresses=$6 routes=$7 proto=$8 configuration=$9
shift 9
calls=$1 child=$2 patience=$3
lock
step "claiming the link $if"
if [ -e "$state/owner" ] && ! ours; then echo "it belongs to $(cat "$state/owner")" >&2; exit 90; fi
if ! ours && { present || [ -e "$(place conf)" ]; }; then
  echo "it exists and nothing says that it is ours" >&2; exit 90
fi
mkdir -p "$state" "$daemons"
printf '%s\n' "$owner" | put "$state/owner"
printf 'swanctl { load = random }\n' | put "$state/ask"
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
for family in $families; do
  file=$(forwarding "$family") record=$store/forward-$family
  step "recording and setting $file"
  mkdir -p "$record"
  if ! [ -e "$record/prior" ]; then put "$record/prior" < "$file"; fi
  : > "$record/used-by-$if"
  if [ "$(cat "$file")" != 1 ]; then echo 1 > "$file"; fi
done
step "loading the firewall table $table"
printf '%s' "$ruleset" | put "$state/rules"
nft -f "$state/rules"
nft -s list table inet "$table" | digest | put "$state/loaded"
device=lo
if [ "$plane" = route ]; then
  device=$if
  step "making the interface $if"
  if ! present && ! ip link add dev "$if" type xfrm dev lo if_id "$number"; then exit 91; fi
  ip link set dev "$if" mtu "$mtu" up
elif present; then step "removing the interface $if"; ip link delete dev "$if"; fi
step "setting the addresses of the link"
for address in $(cat "$state/addresses" 2>/dev/null); do
  case " $addresses " in
    *" $address "*) if [ $device = lo ]; then continue; fi;;
  esac
  if ip -o address show dev lo | grep -qF " $address "; then ip address delete "$address" dev lo; fi
done
printf '%s\n' $addresses | put "$state/addresses"
for address in $addresses; do ip address replace "$address" dev $device; done
if [ "$plane" = route ]; then
  printf '%s' "$routes" | while read -r prefix source; do
    step "routing $prefix over $if"
    ip route replace "$prefix" dev "$if" proto "$proto" ${source:+src "$source"}
  done
  for family in 4 6; do
    if [ $family = 4 ]; then full=32; else full=128; fi
    ip -$family route show dev "$if" proto "$proto" | while read -r prefix _; do
      case $prefix in */*) ;; *) prefix=$prefix/$full;; esac
      if ! printf '%s' "$routes" | cut -d' ' -f1 | grep -qxF "$prefix"; then
        ip -$family route delete "$prefix" dev "$if" proto "$proto"
      fi
    done
  done
fi
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
if [ "$calls" = yes ]; then
  # A connection that is new to the daemon is started by it.
  tries=0
  until [ -n "$(sessions)" ] || [ $tries -ge 3 ]; do sleep 0.1; tries=$((tries+1)); done
  if [ -z "$(sessions)" ]; then step "starting the session of $if"; initiate; fi
fi
put "$state/synced" < "$state/session"
"""
)
"""Make the end what it is to be: ownership, files, forwarding, firewall, interface, addresses, routes, the daemon and
its connection; on the side that calls, the session too, when there is none or it was made with other files. Standard
input: the files. Arguments: families, ruleset, plane, number of the interface, MTU, addresses (by spaces), routes
(lines of prefix and source address), their protocol number, settings for a daemon that has to be started; `yes` on the
side that calls, name of the CHILD_SA, seconds that one attempt may take. Exits 90 when the name is taken, 91 when the
kernel has no XFRM interface, 93 when loading would take another's connection out of the daemon, 94 when there is no
daemon to start."""

INITIATE = (
    _CHANGES
    + _SESSION
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
    + r"""
if ! ours; then exit 0; fi
lock
unload
rm -f "$state/synced" "$state/synced.new" "$state/initiated"
if present; then step "removing the interface $if"; ip link delete dev "$if" || ! present; fi
release_daemon
"""
)
"""End the session and take the connection out of the daemon; firewall and addresses stay."""

REMOVE = (
    _CHANGES
    + r"""
if ! [ -d "$store" ]; then exit 0; fi
lock
if ! ours; then
  # Cut off before it was claimed: nothing but empty folders can be there.
  if ! [ -e "$state/owner" ]; then
    rm -f "$state/owner.new"; rmdir "$daemons" "$state" "$store/links" "$store" 2>/dev/null || :
  fi
  exit 0
fi
unload
step "removing interface and addresses of $if"
if present; then ip link delete dev "$if" || ! present; fi
for address in $(cat "$state/addresses" 2>/dev/null); do
  if ip -o address show dev lo | grep -qF " $address "; then ip address delete "$address" dev lo; fi
done
release_daemon
if [ -e "$boot" ] || [ -e "$boot.new" ]; then
  step "removing the link at boot"
  systemctl disable -q "skyspan-$if.service" || :
  rm -f "$boot" "$boot.new"
  systemctl daemon-reload
fi
step "removing the firewall table $table"
if command -v nft >/dev/null; then printf 'table inet %s\ndelete table inet %s\n' "$table" "$table" | nft -f -; fi
for family in 4 6; do
  file=$(forwarding $family) record=$store/forward-$family
  if ! [ -d "$record" ]; then continue; fi
  step "restoring $file"
  rm -f "$record/used-by-$if"
  if ! ls "$record" | grep -q '^used-by-'; then
    prior=$(cat "$record/prior" 2>/dev/null) || prior=
    if [ -n "$prior" ] && [ "$(cat "$file")" != "$prior" ]; then echo "$prior" > "$file"; fi
    rm -rf "$record"
  fi
done
step "removing $state"
rm -rf "$state/arrived"
for name in addresses ask boot loaded rules session synced initiated owner; do rm -f "$state/$name.new"; done
for name in addresses ask boot loaded rules session synced initiated; do rm -f "$state/$name"; done
rm -f "$state/owner"
rmdir "$state" "$store/links" "$store" 2>/dev/null || :
"""
)
"""Take everything away, the mark of ownership last; what others still need stays."""
