"""The shell scripts that run on a gateway: constants of POSIX sh; every value comes as an argument, secrets by stdin.

Each is safe to be cut off anywhere and run again: files are put in place by rename, the mark of ownership is written
before the first change and removed after the last, a daemon's id is recorded before it becomes the daemon.
"""

from __future__ import annotations

from skyspan.networks.changing import CHANGING, FORWARD, FORWARD_BACK, LINK, MARKING, ROUTE, RUNNING
from skyspan.networks.docker import ADMIT, BY_INTERFACE, FORWARDING, LOOK
from skyspan.networks.guard import CONFIRM, GUARD

PLACES = (
    r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
if=$1 owner=$2 table=$3; shift 3
store=/var/lib/skyspan state=/var/lib/skyspan/links/$if
conf=/etc/wireguard/$if.conf rules=/etc/wireguard/$if.nft
forward6=/proc/sys/net/ipv6/conf/all/forwarding
pidfile=/run/skyspan/$if.pid log=/run/skyspan/$if.log socket=/run/wireguard/$if.sock
"""
    + LINK
)
"""What every script starts with. Arguments: interface, owner, table, then the script's own."""

_CHANGES = (
    BY_INTERFACE
    + FORWARDING
    + ADMIT
    + GUARD
    + CHANGING
    + RUNNING
    + r"""end_daemon() {
  end_running "wireguard-go.*$if" 2
  rm -f "$pidfile" "$pidfile.new" "$log" "$socket"
  rmdir /run/skyspan /run/wireguard 2>/dev/null || :
}
lower() {
  end_daemon
  if present; then ip link delete dev "$if" || ! present; fi
}
"""
)

PREPARE = (
    _CHANGES
    + MARKING
    + r"""
families=$1 ruleset=$2 seconds=$3 proto=$4
lock
step "claiming the interface $if"
there() { present || [ -e "$conf" ]; }
claim there
step "writing $conf"
if ! [ -d /etc/wireguard ]; then : > "$store/made-folder"; mkdir -p /etc/wireguard; fi
put "$conf"
printf '%s' "$ruleset" | put "$rules"
"""
    + FORWARD
    + r"""step "arming the timer that takes the firewall back"
arm "$seconds" "$proto"
step "loading the firewall table $table"
if ! nft -f "$rules"; then exit 1; fi
nft -s list table inet "$table" | digest | put "$state/loaded"
step "having Docker's chains let $if through"
admit_forwarding "$families"
"""
)
"""Everything that must stand before the first packet: ownership, files, forwarding, and the firewall, which is taken
back unless confirmed. Standard input: the configuration. Arguments: families, ruleset, after how many seconds it is
taken back, our routes' protocol number."""

CONFIRMED = _CHANGES + CONFIRM
"""End the timer that would take the firewall back. Exits 96 when it has done so."""

RAISE = (
    _CHANGES
    + r"""
plane=$1 again=$2 mtu=$3 addresses=$4 routes=$5 proto=$6 quick=$7
lock
if ! ours; then echo "the interface $if is not prepared" >&2; exit 1; fi
if [ "$again" = again ]; then step "taking the interface down to make it anew"; lower; fi
step "making the interface $if"
if ! present; then
  end_daemon
  if [ "$plane" != userspace ] && ip link add dev "$if" type wireguard 2>/dev/null; then :
  elif [ "$plane" = kernel ]; then exit 91
  elif ! command -v wireguard-go >/dev/null; then exit 92
  elif ! [ -c /dev/net/tun ]; then exit 95
  else
    mkdir -p /run/skyspan
    LOG_LEVEL=error setsid sh -c 'echo $$ > "$1.new"; mv -f "$1.new" "$1"; exec wireguard-go -f "$2"' \
      skyspan "$pidfile" "$if" </dev/null >"$log" 2>&1 9<&- &
    tries=0
    until wg show "$if" public-key >/dev/null 2>&1; do
      tries=$((tries+1))
      if [ $tries -gt 100 ]; then grep -v '[│┌└]' "$log" >&2 || :; exit 1; fi
      sleep 0.05
    done
  fi
fi
step "giving the configuration to $if"
grep -Ev "^($quick) =" "$conf" | WG_ENDPOINT_RESOLUTION_RETRIES=3 wg syncconf "$if" /dev/stdin
digest < "$conf" | put "$state/synced"
step "setting the addresses of $if"
for address in $addresses; do ip address replace "$address" dev "$if"; done
ip -o address show dev "$if" scope global | while read -r _ _ _ address _; do
  case " $addresses " in *" $address "*) ;; *) ip address delete "$address" dev "$if";; esac
done
ip link set dev "$if" mtu "$mtu" up
"""
    + ROUTE
)
"""The interface itself. Arguments: plane, `again` to make it anew, MTU, addresses (by spaces), routes (lines of prefix
and source address), their protocol number, the keys of the configuration that are only for wg-quick. Exits 91 when the
kernel cannot, 92 when wireguard-go is missing."""

LOWER = (
    _CHANGES
    + r"""
if ours; then lock; step "removing the interface $if"; lower; fi
"""
)
"""Take the interface away and keep the rest."""

REMOVE = (
    _CHANGES
    + MARKING
    + r"""
begin_removal "$store/links"
step "removing the interface $if"
disarm
lower
step "removing the firewall table $table"
if command -v nft >/dev/null; then printf 'table inet %s\ndelete table inet %s\n' "$table" "$table" | nft -f -; fi
step "removing the link's rules from Docker's chains"
if command -v nft >/dev/null; then admit_forwarding ""; fi
step "removing the files of $if"
rm -f "$conf" "$conf.new" "$rules" "$rules.new"
"""
    + FORWARD_BACK
    + r"""if [ -e "$store/made-folder" ] && rmdir /etc/wireguard 2>/dev/null; then rm -f "$store/made-folder"; fi
step "removing $state"
rm -f "$state/loaded" "$state/loaded.new" "$state/synced" "$state/synced.new" "$state/taken-back"
unclaim "$store/links"
"""
)
"""Take everything away, the mark of ownership last; what others still need stays."""

SURVEY = (
    BY_INTERFACE
    + FORWARDING
    + LOOK
    + r"""
peers=$1 size=$2 size6=$3
probe() {
  case $1 in *:*) small=56 big=$size6 head=48;; *) small=36 big=$size head=28;; esac
  for whole in $small $big; do
    if ping -n -q -c 1 -W 1 -M do -s $((whole-head)) "$1" >/dev/null 2>&1; then answer=yes; else answer=no; fi
    echo "$1 $whole $answer"
    if [ $answer = no ]; then break; fi
  done
}
before=
if present && [ -n "$peers" ]; then
  before=$(wg show "$if" transfer 2>/dev/null) || :
  answers=$(for peer in $peers; do probe "$peer" & done; wait)
fi
echo @tools
for tool in wg ip nft ping flock sha256sum wireguard-go; do
  if command -v $tool >/dev/null; then echo "$tool yes"; else echo "$tool no"; fi
done
if [ -d /sys/module/wireguard ] || modprobe -n -q wireguard 2>/dev/null; then echo kernel yes; else echo kernel no; fi
if [ -c /dev/net/tun ]; then echo tun yes; else echo tun no; fi
echo @powers; awk '$1 == "CapEff:" { print $2 }' /proc/self/status
echo @time; date +%s
echo @owner; if [ -e "$state/owner" ]; then cat "$state/owner"; elif [ -e "$conf" ]; then echo "?"; fi
echo @link; ip -j -d link show dev "$if" 2>/dev/null || :
echo @addr; ip -j address show 2>/dev/null || :
echo @route4; ip -4 -j route show 2>/dev/null || :
echo @route6; ip -6 -j route show 2>/dev/null || :
echo @wg
if present && command -v wg >/dev/null; then
  { wg show "$if" dump 2>/dev/null || :; } |
    awk 'BEGIN { FS = OFS = "\t" } NR == 1 { $1 = "-" } NR > 1 { $2 = "-" } { print }'
fi
echo @digests
for pair in config:"$conf" rules:"$rules"; do
  if [ -e "${pair#*:}" ]; then echo "${pair%%:*} $(digest < "${pair#*:}")"; fi
done
for name in loaded synced; do if [ -e "$state/$name" ]; then echo "$name $(cat "$state/$name")"; fi; done
if command -v nft >/dev/null; then echo "table $(nft -s list table inet "$table" 2>/dev/null | digest)"; fi
if present && command -v wg >/dev/null; then echo "psk $(wg show "$if" preshared-keys 2>/dev/null | sort | digest)"; fi
echo @forward
for family in 4 6; do
  file=$(forwarding $family)
  if [ -e "$file" ]; then echo "$family $(cat "$file")"; fi
done
echo @fixed
for family in 4 6; do if ! [ -w "$(forwarding $family)" ]; then echo $family; fi; done
look_at_forwarding
echo @before; printf '%s\n' "$before" | awk 'NF == 3 { print $1, $2 }'
echo @udp; cat /proc/net/udp /proc/net/udp6 2>/dev/null || :
echo @probes; printf '%s' "${answers:-}"
"""
)
"""Look at everything at once, pinging first, as that makes the handshake. Private and shared keys stay on the host.
Arguments: addresses to ping (by spaces), size of the big packet for IPv4 and for IPv6."""
