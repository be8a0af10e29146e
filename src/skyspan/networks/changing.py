"""What scripts that change a host for a network have in common: fragments of POSIX sh.

The scripts set `$store`, the folder on the host in which Skyspan keeps its marks, before them; those of a link with an
interface also `$if`, its name, `$state`, the folder of its own marks, `$owner`, and `$forward6`.
"""

from __future__ import annotations

CHANGING = r"""
umask 077
doing="starting"
step() { doing=$1; }
trap 'code=$?; [ $code = 0 ] || echo "failed while $doing" >&2' EXIT
# The folder itself is the lock, so that nothing is left behind; it may vanish between opening and locking.
lock() {
  while :; do
    mkdir -p "$store"; exec 9<"$store"; flock 9
    if [ /proc/self/fd/9 -ef "$store" ]; then return; fi
  done
}
put() { cat > "$1.new"; mv -f "$1.new" "$1"; }
"""
"""`step WORDS`: what a failure from now on is said to have happened in. `lock`: be alone on the host until the script
ends. `put FILE`: standard input into a file, by rename."""

OWNED = r"""ours() { [ -e "$state/owner" ] && [ "$(cat "$state/owner")" = "$owner" ]; }
"""
"""`ours`: whether the mark in `$state` says that the stage `$owner` made it."""

DIGEST = r"""digest() { sha256sum | cut -d' ' -f1; }
"""
"""`digest`: that of standard input."""

LINK = (
    r"""forwarding() { if [ "$1" = 4 ]; then echo /proc/sys/net/ipv4/ip_forward; else echo "$forward6"; fi; }
present() { ip link show dev "$if" >/dev/null 2>&1; }
"""
    + OWNED
    + DIGEST
)
"""`forwarding FAMILY`: the file that switches it. `present`: whether there is the interface."""

MARKING = r"""
claim() { # COMMAND: whether there is something already
  if [ -e "$state/owner" ] && ! ours; then echo "it belongs to $(cat "$state/owner")" >&2; exit 90; fi
  if ! ours && "$@"; then echo "it exists and nothing says that it is ours" >&2; exit 90; fi
  mkdir -p "$state"
  printf '%s\n' "$owner" | put "$state/owner"
}
unclaim() { # FOLDER...
  rm -f "$state/owner.new" "$state/owner"
  rmdir "$state" "$@" "$store" 2>/dev/null || :
}
begin_removal() { # FOLDER...
  if ! [ -d "$store" ]; then exit 0; fi
  lock
  if ours; then return; fi
  # Cut off before it was claimed: nothing but empty folders can be there.
  if ! [ -e "$state/owner" ]; then unclaim "$@"; fi
  exit 0
}
"""
"""`claim COMMAND`: mark what the script makes as ours; exits 90 where it is another's, or where the command finds it
there unmarked. `begin_removal FOLDER...`: be alone, or end where nothing is ours. `unclaim FOLDER...`: take the mark
away, as the last thing, and the folders that are empty then."""

RUNNING = r"""running() { # WORDS
  pid=$(cat "$pidfile" 2>/dev/null) || return 1
  tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q "$1"
}
end_running() { # WORDS SECONDS
  if ! running "$1"; then return; fi
  kill "$pid" 2>/dev/null || :
  tries=0
  while running "$1" && [ $tries -lt $(($2*20)) ]; do sleep 0.05; tries=$((tries+1)); done
  if running "$1"; then kill -9 "$pid" 2>/dev/null || :; sleep 0.1; fi
}
"""
"""`running WORDS`: whether the process that `$pidfile` names is one whose command line has these words.
`end_running WORDS SECONDS`: end it, by force when it takes longer."""

FORWARD = r"""for family in $families; do
  file=$(forwarding "$family") record=$store/forward-$family
  step "recording and setting $file"
  mkdir -p "$record"
  if ! [ -e "$record/prior" ]; then put "$record/prior" < "$file"; fi
  : > "$record/used-by-$if"
  if [ "$(cat "$file")" != 1 ]; then echo 1 > "$file"; fi
done
"""
"""Forward what `$families` says, recording how it was before the first link."""

FORWARD_BACK = r"""for family in 4 6; do
  file=$(forwarding $family) record=$store/forward-$family
  if ! [ -d "$record" ]; then continue; fi
  step "restoring $file"
  rm -f "$record/used-by-$if"
  if ! ls "$record" | grep -q '^used-by-'; then
    prior=$(cat "$record/prior" 2>/dev/null) || prior=
    # Not written to when it is so already: in a container it may be read-only.
    if [ -n "$prior" ] && [ "$(cat "$file")" != "$prior" ]; then echo "$prior" > "$file"; fi
    rm -rf "$record"
  fi
done
"""
"""Give forwarding back as it was, with the last link that needs it."""

ROUTE = r"""printf '%s' "$routes" | while read -r prefix source; do
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
"""
"""Have exactly `$routes` (lines of prefix and source address) over the interface, among those marked `$proto`."""
