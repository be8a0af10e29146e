"""The shell scripts that run on a speaker: constants of POSIX sh; every value comes as an argument, secrets by stdin.

Each is safe to be cut off anywhere and run again: files are put in place by rename, the mark of ownership is written
before the first change and removed after the last. A daemon of ours is known by the folder in its command line, which
no other process has, so one whose start was cut off is found too.
"""

from __future__ import annotations

from skyspan.networks.changing import CHANGING, DIGEST, MARKING, OWNED

PLACES = (
    r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
# Else vtysh keeps a history in the home of whoever runs it.
export VTYSH_HISTFILE=/dev/null
id=$1 owner=$2; shift 2
store=/var/lib/skyspan state=/var/lib/skyspan/bgp/$id
top=/run/skyspan-bgp run=/run/skyspan-bgp/$id
for frr in /usr/lib/frr /usr/libexec/frr /usr/local/lib/frr; do if [ -x $frr/zebra ]; then break; fi; done
"""
    + OWNED
    + DIGEST
    + r"""here() { [ "$(readlink "/proc/$1/ns/net" 2>/dev/null)" = "$(readlink /proc/self/ns/net)" ]; }
daemons() {
  { grep -lsF -- "$run/" /proc/[0-9]*/cmdline || :; } | while read -r file; do
    pid=${file#/proc/} pid=${pid%/cmdline}
    # A container of this host may be another speaker of the same stage.
    if here "$pid" && read -r name 2>/dev/null < "/proc/$pid/comm"; then
      case $name in bird|zebra|bgpd|bfdd) echo "$pid $name";; esac
    fi
  done
}
alive() { # DAEMON [what `daemons` said]
  set -- "$1" "$(printf '%s\n' "${2-$(daemons)}" | cut -d' ' -f2 | sort | tr '\n' ' ')"
  case "$1 $2" in 'bird bird '|'frr bfdd bgpd zebra ') return 0;; *) return 1;; esac
}
say() { vtysh --vty_socket "$run" "$@" 2>/dev/null </dev/null; }
running() { say -c 'show running-config' | grep -v -e forwarding -e '^hostname' | digest; }
"""
)
"""What every script starts with. Arguments: identity, owner, then the script's own."""

_CHANGES = (
    CHANGING
    + r"""flush() {
  if ! [ -e "$state/imports" ]; then return 0; fi
  while read -r prefix; do
    case $prefix in *:*) family=6;; *) family=4;; esac
    case $1 in
      bird) ip -$family route flush exact "$prefix" proto bird metric "$(cat "$state/metric")";;
      frr) ip -$family route flush exact "$prefix" proto bgp;;
    esac
  done < "$state/imports"
}
end_daemons() {
  daemons | while read -r pid name; do kill "$pid" 2>/dev/null || :; done
  tries=0
  while [ -n "$(daemons)" ] && [ $tries -lt 60 ]; do sleep 0.05; tries=$((tries+1)); done
  daemons | while read -r pid name; do kill -9 "$pid" 2>/dev/null || :; done
  while [ -n "$(daemons)" ]; do sleep 0.05; done
  if [ -e "$state/daemon" ]; then flush "$(cat "$state/daemon")"; fi
  rm -rf "$run"
  rmdir "$top" 2>/dev/null || :
  # FRR's daemons make their usual folder beside the one they are given.
  if [ -e "$state/made-folder" ]; then rmdir /run/frr 2>/dev/null || :; rm -f "$state/made-folder"; fi
}
user_of() { if getent passwd "$1" >/dev/null; then echo "$1"; else echo root; fi; }
give() { # the configuration, readable by the daemon alone
  cp "$state/config" "$run/config.new" && chown "$1" "$run/config.new" && mv -f "$run/config.new" "$run/config"
}
wait_for() { # until a command succeeds, 10 s at most
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries+1))
    if [ $tries -gt 200 ]; then cat "$run/log" "$run/out" >&2 2>/dev/null || :; return 1; fi
    sleep 0.05
  done
}
begin_bird() {
  user=$(user_of bird)
  ( umask 022; mkdir -p "$run" ) && chown "$user" "$run" && give "$user" || return 1
  bird -c "$run/config" -s "$run/ctl" -P "$run/pid" -u "$user" -g "$(id -gn "$user")" \
    </dev/null >"$run/out" 2>&1 9<&- || { cat "$run/out" >&2; return 1; }
  wait_for birdcl -s "$run/ctl" show status
}
reload_bird() {
  give "$(user_of bird)" || return 1
  said=$(birdcl -s "$run/ctl" configure)
  case $said in *Reconfigur*) return 0;; *) echo "$said" >&2; return 1;; esac
}
answering() { say -d zebra -c 'show version' && say -d bgpd -c 'show version' && say -d bfdd -c 'show version'; }
begin_frr() {
  user=$(user_of frr)
  if ! [ -d /run/frr ]; then : > "$state/made-folder"; fi
  ( umask 022; mkdir -p "$run" ) && : > "$run/nothing" && printf '%s' "$2" > "$run/startup" || return 1
  chown "$user" "$run" "$run/nothing" "$run/startup" || return 1
  for name in zebra bgpd bfdd; do
    file=nothing more=
    case $name in zebra) file=startup;; bgpd) more="-p $1";; bfdd) more="--bfdctl $run/bfd";; esac
    "$frr/$name" -d --vty_socket "$run" -z "$run/zserv" -f "$run/$file" -i "$run/$name.pid" -P 0 $more \
      -u "$user" -g "$(id -gn "$user")" --log "file:$run/log" --log-level warnings \
      </dev/null >"$run/out" 2>&1 9<&- || { cat "$run/out" >&2; return 1; }
  done
  wait_for answering && greet
}
# A session of BFD that bgpd asks for before BGP is up has no local address: then it gets one, which ends it and makes
# another, and a neighbour that had seen it up ends BGP for that (FRR #17337). So it is asked for when BGP is up.
greet() {
  sed '/^ neighbor [^ ]* bfd/d' "$state/config" > "$state/part" && feed "$state/part" || return 1
  sed -n -e '/^router bgp /p' -e '/^ neighbor [^ ]* bfd/p' "$state/config" > "$state/part"
  wanted=$(grep -c ' bfd$' "$state/part") || wanted=0
  tries=0
  while [ $tries -lt 30 ] && [ "$(established)" -lt "$wanted" ]; do sleep 0.1; tries=$((tries+1)); done
  feed "$state/part" || return 1
  rm -f "$state/part"
}
established() { say -c 'show bgp vrf default summary json' | grep -o '"Established"' | wc -l; }
feed() { # lines to the running daemons; vtysh says what they refuse
  if vtysh --vty_socket "$run" -f "$1" </dev/null >"$state/said" 2>&1; then rm -f "$state/said"; return 0; fi
  cat "$state/said" >&2
  rm -f "$state/said"
  return 1
}
reload_frr() {
  feed "$state/delta" || return 1
  for family in ipv4 ipv6; do say -c "clear bgp $family unicast * soft" >/dev/null || :; done
}
loaded() {
  digest < "$state/config" | put "$state/loaded"
  if [ "$1" = frr ]; then running | put "$state/running"; else rm -f "$state/running"; fi
}
peers() { # name the peers in the addresses of links whose networks do not hold them; each is recorded first
  { cat "$state/peers" 2>/dev/null || :; printf '%s' "$1"; } | sort -u | put "$state/peers"
  while read -r address peer device; do
    if printf '%s' "$1" | grep -qxF "$address $peer $device"; then
      ip address replace "$address" peer "$peer" dev "$device" || return 1
    else
      ip address delete "$address" peer "$peer" dev "$device" 2>/dev/null || :
    fi
  done < "$state/peers"
  printf '%s' "$1" | put "$state/peers"
}
"""
)

PREPARE = (
    _CHANGES
    + MARKING
    + r"""
daemon=$1
lock
step "claiming the instance $id"
claim false
step "checking the new configuration"
put "$state/next"
case $daemon in
  bird) bird -p -c "$state/next" || { rm -f "$state/next"; exit 93; };;
  frr) vtysh -C -f "$state/next" || { rm -f "$state/next"; exit 93; };;
esac
"""
)
"""Claim the instance and check its new configuration, touching nothing that runs. Standard input: the configuration.
Arguments: daemon. Exits 90 when the name is taken, 93 when the daemon refuses the configuration."""

SWITCH = (
    _CHANGES
    + r"""
daemon=$1 how=$2 metric=$3 port=$4 peers=$5 imports=$6 startup=$7
lock
if ! ours || ! [ -e "$state/next" ]; then echo "the instance $id is not prepared" >&2; exit 1; fi
put "$state/delta"
step "naming the peers in the link's addresses"
peers "$peers"
had=$(cat "$state/daemon" 2>/dev/null || :)
step "keeping what ran until now"
rm -f "$state/good"
if [ -e "$state/config" ] && [ "$(cat "$state/loaded" 2>/dev/null)" = "$(digest < "$state/config")" ]; then
  cp "$state/config" "$state/good.new"; mv -f "$state/good.new" "$state/good"
fi
mv -f "$state/next" "$state/config"
if [ "$how" != reload ] || [ "$had" != "$daemon" ] || ! alive "$daemon"; then
  how=start
  step "ending the daemons of before"
  end_daemons
fi
printf '%s\n' "$daemon" | put "$state/daemon"
printf '%s\n' "$metric" | put "$state/metric"
{ cat "$state/imports" 2>/dev/null || :; printf '%s' "$imports"; } | sort -u | put "$state/imports"
step "giving the configuration to $daemon"
case $how-$daemon in
  reload-bird) reload_bird || { end_daemons; begin_bird || how=failed; };;
  reload-frr) reload_frr || { end_daemons; begin_frr "$port" "$startup" || how=failed; };;
  start-bird) begin_bird || how=failed;;
  start-frr) begin_frr "$port" "$startup" || how=failed;;
esac
rm -f "$state/delta"
if [ $how = failed ]; then
  step "going back to the configuration that ran before"
  if [ "$had" = "$daemon" ] && [ -e "$state/good" ]; then
    mv -f "$state/good" "$state/config"
    end_daemons
    if [ "$daemon" = bird ]; then begin_bird; else begin_frr "$port" "$startup"; fi
    loaded "$daemon"
    exit 94
  fi
  exit 1
fi
loaded "$daemon"
"""
)
"""Give the prepared configuration to the daemon, keeping the one before it. Standard input: for FRR, the lines that
make the one of the other. Arguments: daemon; `reload` to keep the sessions, else it is started anew; the metric of its
routes; its port; addresses that name a peer (lines of address, peer, device); the prefixes it may route (lines); what
zebra reads first. Exits 94 when it failed and the configuration of before runs again."""

BACK = (
    _CHANGES
    + r"""
port=$1 startup=$2 from=$3
lock
if ! ours || ! [ -e "$state/good" ] || [ "$(digest < "$state/config")" != "$from" ]; then exit 0; fi
daemon=$(cat "$state/daemon")
step "going back to the configuration that ran before"
mv -f "$state/good" "$state/config"
end_daemons
if [ "$daemon" = bird ]; then begin_bird; else begin_frr "$port" "$startup"; fi
loaded "$daemon"
"""
)
"""Go back to the configuration before the last switch, if that one took place. Arguments: the port, what zebra reads
first, the digest of the configuration to go back from."""

DISCARD = (
    _CHANGES
    + r"""
if ours; then lock; rm -f "$state/next" "$state/next.new"; fi
"""
)
"""Forget a configuration that was checked and is not wanted any more."""

LOWER = (
    _CHANGES
    + r"""
if ours; then lock; step "ending the daemons of $id"; end_daemons; fi
"""
)
"""End the daemons, which withdraw their routes, and keep the rest."""

REMOVE = (
    _CHANGES
    + MARKING
    + r"""
begin_removal "$store/bgp"
step "ending the daemons of $id"
end_daemons
step "removing the addresses that name a peer"
if [ -e "$state/peers" ]; then
  while read -r address peer device; do
    ip address delete "$address" peer "$peer" dev "$device" 2>/dev/null || :
  done < "$state/peers"
fi
step "removing $state"
for name in next config good delta part said daemon metric imports peers loaded running made-folder; do
  rm -f "$state/$name" "$state/$name.new"
done
unclaim "$store/bgp"
"""
)
"""Take everything away, the mark of ownership last."""

SURVEY = r"""
sessions=$1 targets=$2
yes() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }
echo @tools
for tool in ip ping flock sha256sum getent; do echo "$tool $(yes command -v $tool)"; done
bird() { command -v bird && command -v birdcl; }
frr() { [ -x $frr/zebra ] && [ -x $frr/bgpd ] && [ -x $frr/bfdd ] && command -v vtysh; }
echo "bird $(yes bird)"; echo "frr $(yes frr)"
echo @facts
for name in owner daemon metric loaded running; do
  if [ -e "$state/$name" ]; then echo "$name $(cat "$state/$name")"; fi
done
if [ -e "$state/config" ]; then echo "config $(digest < "$state/config")"; fi
daemon=$(cat "$state/daemon" 2>/dev/null || :) found=$(daemons)
echo "alive $(yes alive "$daemon" "$found")"
echo @metrics
for file in "$store"/bgp/*/metric; do
  if [ -e "$file" ] && [ "$file" != "$state/metric" ]; then cat "$file"; fi
done
echo @addr; ip -j address show
echo @peered; ip -o address show | awk '{for (n = 5; n < NF; n++) if ($n == "peer") print $4, $(n + 1), $2}'
echo @route4; ip -4 -j route show 2>/dev/null || :
echo @route6; ip -6 -j route show 2>/dev/null || :
echo @next
for target in $targets; do echo "$target $(ip -j route get "$target" 2>/dev/null | tr -d '\n')"; done
mine=" $(printf '%s\n' "$found" | cut -d' ' -f1 | tr '\n' ' ')"
echo @foreign
for file in /proc/[0-9]*/comm; do
  pid=${file#/proc/} pid=${pid%/comm}
  if read -r name 2>/dev/null < "$file" && [ "$name" = zebra ]; then
    case $mine in *" $pid "*) ;; *)
      if here "$pid"; then echo "$name $pid"; fi;;
    esac
  fi
done
echo @tcp; { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || :; } | awk '$4 == "0A" {print $2}'
echo @udp; { cat /proc/net/udp /proc/net/udp6 2>/dev/null || :; } | awk '$1 != "sl" {print $2}'
echo @wg; if command -v wg >/dev/null; then wg show all allowed-ips 2>/dev/null || :; fi
case $daemon in
  bird) if alive bird "$found"; then
    ask() { birdcl -s "$run/ctl" "$@" 2>/dev/null </dev/null || :; }
    echo @sessions; ask show protocols all
    echo @bfd; ask show bfd sessions
    for session in $sessions; do
      name=${session%%,*}
      echo "@received/$name"; ask show route protocol "$name"
      echo "@sent/$name"; ask show route export "$name"
      echo "@refused/$name"; ask show route filtered protocol "$name"
    done
  fi;;
  frr) if alive frr "$found"; then
    # One call for all, as each connects to three daemons; it echoes every command before its answer.
    set -- -c 'show bgp vrf default summary json' -c 'show bgp vrf default neighbors json' -c 'show bfd peers json'
    for session in $sessions; do
      rest=${session#*,} peer=${rest%,*}
      show="show bgp ipv${rest##*,} unicast neighbors $peer"
      set -- "$@" -c "$show routes json" -c "$show advertised-routes json" -c "$show filtered-routes json"
    done
    say -E "$@" | sed 's/^[^ ]*# show /@show /' || :
    echo @facts; echo "live $(running)"
  fi;;
esac
"""
"""Look at everything at once; writes nothing. Arguments: the sessions (words of name, peer, IP version, by commas) and
the addresses whose next hop is asked for (words)."""

PROBE = r"""
printf '%s' "$1" | {
  while read -r source target; do
    {
      if ping -n -q -c 1 -W 1 -I "$source" "$target" >/dev/null 2>&1; then answer=yes; else answer=no; fi
      echo "$source $target $answer"
    } </dev/null &
  done
  wait
}
"""
"""One ping per line of source and target, all at once."""
