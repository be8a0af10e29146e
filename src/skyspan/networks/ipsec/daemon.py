"""The shell functions that talk to charon, start it, load a link's connection and end it: fragments of POSIX sh.

They read what `scripts.PLACES` sets. A daemon that somebody else started is used and left running; one that was started
for links ends with the last of them.
"""

from __future__ import annotations

from skyspan.networks.changing import RUNNING

ASK = r"""# Without a cipher loaded, which asking does not need, swanctl takes a quarter of the time.
ask() {
  if [ -S "$socket" ] && [ -e "$state/ask" ]; then STRONGSWAN_CONF=$state/ask swanctl "$@"; else swanctl "$@"; fi
}
answers() { ask --stats >/dev/null 2>&1; }
loaded() { ask --list-conns --raw 2>/dev/null | sed -n 's/^list-conn event {\([^ ]*\) {.*/\1/p'; }
sessions() { ask --list-sas --ike "$if" --raw 2>/dev/null | grep '^list-sa event' || :; }
"""
"""What asks it and changes nothing: `answers`, `loaded` (names of connections), `sessions` (of the link)."""

DAEMON = (
    RUNNING
    + r"""
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
  elif ! running charon; then
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
  else end_running charon 3
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
end_sessions() {
  if [ -n "$(sessions)" ]; then timeout 3 swanctl --terminate --ike "$if" --force >/dev/null 2>&1 || :; fi
  tries=0
  while [ -n "$(sessions)" ] && [ $tries -lt 20 ]; do sleep 0.05; tries=$((tries+1)); done
}
initiate() {
  swanctl --initiate --ike "$if" --child "$child" --timeout "$patience" 2>&1 |
    grep -v "^plugin '" > "$state/initiated" || :
}
# A connection that is new to the daemon is started by it.
call() {
  tries=0
  until [ -n "$(sessions)" ] || [ $tries -ge 3 ]; do sleep 0.1; tries=$((tries+1)); done
  if [ -z "$(sessions)" ]; then step "starting the session of $if"; initiate; fi
}
lower() {
  unload
  rm -f "$state/synced" "$state/synced.new" "$state/initiated"
  if present; then step "removing the interface $if"; ip link delete dev "$if" || ! present; fi
}
forget_boot() {
  if [ -e "$boot" ] || [ -e "$boot.new" ]; then
    step "removing the link at boot"
    systemctl disable -q "skyspan-$if.service" || :
    rm -f "$boot" "$boot.new"
    systemctl daemon-reload
  fi
}
"""
)
"""`start_daemon`, `load`, `unload`, `end_sessions`, `call`; `lower`: end the session and take connection and interface
away; `release_daemon`: end the daemon if it was started for links and none is left."""
