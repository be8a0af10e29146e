"""The shell scripts that look at a gateway, after `scripts.PLACES`: they write nothing, and keys stay on the host."""

from __future__ import annotations

from skyspan.networks.docker import FORWARDING, LOOK

SURVEY = (
    FORWARDING
    + LOOK
    + r"""
peers=$1 own=$2 size=$3 far=$4 prefixes=$5
# Somebody who accepts libipsec's interface, or a prefix of the other side, means links.
means() { for prefix in $prefixes ipsec0; do printf -- '-e %s ' "$prefix"; done; }
knows() { grep -qF -e "\"$if\"" -e " $if " $(means); }
stats=$(ask --stats --raw 2>/dev/null) || stats=
before= names=
if [ -n "$stats" ]; then before=$(sessions) names=$(loaded); fi
if [ -n "$peers" ]; then
  for peer in $peers; do
    case $peer in *:*) family=6 small=56 head=48;; *) family=4 small=36 head=28;; esac
    source=
    for address in $own; do
      case $address in *:*) if [ $family = 6 ]; then source=$address; fi;;
        *) if [ $family = 4 ]; then source=$address; fi;; esac
    done
    for whole in $small $size; do
      if ping -n -q -c 1 -W 1 -M do -I "$source" -s $((whole-head)) "$peer" >/dev/null 2>&1; then answer=yes
      else answer=no; fi
      answers="${answers:-}$peer $whole $answer
"
      if [ $answer = no ]; then break; fi
    done
  done
fi
kernel() { # MODULE OPTION: whether the kernel has it, as a module or built in
  if [ -d "/sys/module/$1" ] || modprobe -n -q "$1" 2>/dev/null; then return 0; fi
  { zcat /proc/config.gz || cat "/boot/config-$(uname -r)"; } 2>/dev/null | grep -q "^$2=[ym]"
}
yes() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }
libipsec() { ls /usr/lib*/ipsec/plugins/libstrongswan-kernel-libipsec.so /usr/lib*/strongswan/plugins/*-libipsec.so \
  /usr/lib/*/ipsec/plugins/*-libipsec.so 2>/dev/null | grep -q .; }
charon() { command -v charon-systemd || ls /usr/lib/ipsec/charon /usr/libexec/ipsec/charon \
  /usr/libexec/strongswan/charon 2>/dev/null | grep -q .; }
echo @tools
for tool in swanctl ip nft ping flock sha256sum awk; do echo "$tool $(yes command -v $tool)"; done
for what in charon libipsec; do echo "$what $(yes $what)"; done
echo "esp $(yes kernel esp4 CONFIG_INET_ESP)"
echo "xfrm-interface $(yes kernel xfrm_interface CONFIG_XFRM_INTERFACE)"
echo "answers $(yes [ -n "$stats" ])"
echo @time; date +%s
echo @owner; if [ -e "$state/owner" ]; then cat "$state/owner"; elif [ -e "$(place conf)" ]; then echo "?"; fi
echo @plugins; printf '%s\n' "$stats" | sed -n 's/.*plugins=\[\([^]]*\)\].*/\1/p'
echo @conns; printf '%s\n' "$names"
echo @before; printf '%s\n' "$before"
echo @sas; if [ -n "$stats" ] && [ -n "${answers:-}" ]; then sessions; else printf '%s\n' "$before"; fi
echo @link; ip -j -d link show 2>/dev/null || :
echo @addr; ip -j address show 2>/dev/null || :
echo @route4; ip -4 -j route show 2>/dev/null || :
echo @route6; ip -6 -j route show 2>/dev/null || :
echo @digests
for name in conf key cert ca session; do
  if [ -e "$(place $name)" ]; then echo "$name $(digest < "$(place $name)")"; fi
done
if [ -e "$state/rules" ]; then echo "rules $(digest < "$state/rules")"; fi
if [ -e "$state/synced" ]; then echo "synced $(digest < "$state/synced")"; fi
if [ -e "$state/loaded" ]; then echo "loaded $(cat "$state/loaded")"; fi
if [ -e "$state/admitted" ]; then echo "admitted $(digest < "$state/admitted")"; fi
if command -v nft >/dev/null; then echo "table $(nft -s list table inet "$table" 2>/dev/null | digest)"; fi
echo @forward
for family in 4 6; do
  file=$(forwarding $family)
  if [ -e "$file" ]; then echo "$family $(cat "$file")"; fi
done
echo @probes; printf '%s' "${answers:-}"
echo @way
for address in $far; do ip -o route get "$address" 2>&1 | head -n 1 || :; done
look_at_forwarding
echo @log
if [ -n "$peers" ]; then
  if [ -e "$log" ]; then tail -n 400 "$log"
  elif [ -d /run/systemd/system ]; then journalctl -q -o cat -n 400 -t charon -t charon-systemd 2>/dev/null || :
  fi
  echo "-- initiate --"
  cat "$state/initiated" 2>/dev/null || :
fi
"""
)
"""Look at everything at once, pinging in between, so that counters have something to count. Keys stay on the host.
Arguments: inner addresses to ping (by spaces), own inner addresses, size of the big packet, addresses on the other side
whose way is asked for, the prefixes there."""

PROBE = r"""
peers=$1 own=$2 families=$3
code=0
for family in $families; do
  if [ "$(cat "$(forwarding $family)" 2>/dev/null)" = 0 ]; then echo "held $family"; fi
done
for peer in $peers; do
  for address in $own; do
    case "$address $peer" in *:*\ *:*) ;; *:*) continue;; esac
    ping -n -q -c 1 -W 1 -I "$address" "$peer" >/dev/null 2>&1 || code=1
  done
done
exit $code
"""
"""Whether every inner address of the other side answers one ping, and which IP versions are not forwarded, which a ping
between the gateways cannot show. Arguments: those addresses, own inner ones, the IP versions to forward."""
