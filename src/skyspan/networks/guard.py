"""The timer on a host that takes a change of its firewall back unless it is confirmed: fragments of POSIX sh.

Whoever changes a firewall from afar may lock himself out of the host. So before a link's table is loaded, the host
itself is told what to go back to, and when: a shell in a session of its own sleeps there and needs nobody. Only an
order that arrives over the management path after the change ends it. An engine that is killed in between leaves a host
that goes back by itself.

The fragments read what every link's scripts set: `$if`, `$table`, `$owner`, `$store` and `$state`, and `lock` has been
called where they change anything. What a kind of link has besides a table and routes is taken back by fragments of its
own, which the timer runs by themselves: they may fail, and end it not.
"""

from __future__ import annotations

TAKEN_BACK = 96
"""Exit status of `CONFIRM` when it came too late."""

_WAIT = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
if=$1 table=$2 store=$3 state=$4 guard=$5 seconds=$6 proto=$7
echo $$ > "$guard/pid.new"; mv -f "$guard/pid.new" "$guard/pid"
sleep "$seconds"
exec 9<"$store" || exit 0
flock -w 10 9 || :
[ "$(cat "$guard/pid" 2>/dev/null)" = $$ ] || exit 0
: > "$state/taken-back"
"""

_TAKE_BACK = r"""back() { nft -f "$guard/table"; }
if ! back; then printf "table inet %s\ndelete table inet %s\n" "$table" "$table" | nft -f -; : > "$guard/first"; fi
for family in 4 6; do
  ip -$family route show dev "$if" proto "$proto" 2>/dev/null | while read -r prefix _; do
    grep -qxF "$prefix" "$guard/routes" || ip -$family route delete "$prefix" dev "$if" proto "$proto"
  done
done
if [ -e "$guard/first" ]; then ip link set dev "$if" down 2>/dev/null || :; fi
"""

_END = r"""rm -rf "$guard"; rmdir /run/skyspan 2>/dev/null || :
"""

GUARDED = r"""
guard=/run/skyspan/$if.guard
guarding() {
  timer=$(cat "$guard/pid" 2>/dev/null) || return 1
  tr '\0' ' ' < "/proc/$timer/cmdline" 2>/dev/null | grep -qF "skyspan-guard $if "
}
end_timer() { if guarding; then kill -- "-$timer" 2>/dev/null || :; fi; rm -f "$guard/pid" "$guard/pid.new"; }
disarm() { end_timer; rm -rf "$guard"; rmdir /run/skyspan 2>/dev/null || :; }
"""
"""`disarm`: end the timer, and forget what it would go back to."""

_ARM = (
    r"""arm() {
  end_timer
  # What an apply that was cut off loaded was never confirmed: what stood before it is still what to go back to.
  if ! [ -e "$guard/whole" ]; then
    rm -rf "$guard"; mkdir -p "$guard"
    printf 'table inet %s\ndelete table inet %s\n' "$table" "$table" > "$guard/table"
    if ! nft list table inet "$table" 2>/dev/null >> "$guard/table"; then : > "$guard/first"; fi
    for family in 4 6; do ip -$family route show dev "$if" proto "$2" 2>/dev/null || :; done |
      cut -d' ' -f1 > "$guard/routes"
@keep@    : > "$guard/whole"
  fi
  rm -f "$state/taken-back"
  setsid sh -uc '@timer@"""
    r"""' skyspan-guard "$if" "$table" "$store" "$state" "$guard" "$1" "$2" </dev/null >/dev/null 2>&1 9<&- &
  until [ -e "$guard/pid" ]; do sleep 0.01; done
}
"""
)


def arming(known: str = "", before: str = "", after: str = "", keep: str = "") -> str:
    """`arm SECONDS PROTOCOL`: remember table and routes (of that protocol number), and go back to them in so many
    seconds; where there was no table, the interface goes down, so that nothing passes unfiltered.

    `keep` remembers what else there is, in the folder `$guard`, and runs as a part of `arm`. `before` and `after` take
    that back, before the table and after it, by the functions that `known` defines: the variables are those of above
    but `$owner`.
    """
    timer = _WAIT + known + _alone(before) + _TAKE_BACK + _alone(after) + _END
    return _ARM.replace("@keep@", keep).replace("@timer@", timer.replace("'", "'\\''"))


def _alone(fragment: str) -> str:
    return f"(set -e\n{fragment})\n" if fragment else ""


GUARD = GUARDED + arming()
"""All that a link needs which has no more than a table and the routes of its interface."""

CONFIRM = r"""
if ! ours; then exit 0; fi
lock
if [ -e "$state/taken-back" ]; then exit 96; fi
disarm
"""
"""The order that ends the timer; to be run by a command of its own, as its arrival is the proof."""
