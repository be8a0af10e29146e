"""The scripts and commands that run on a host, as values: pure.

Scripts are constants of POSIX sh, safe to be cut off anywhere and run again: what is about to be set is recorded
before, the mark of ownership is written first and removed last.
"""

from __future__ import annotations

from dataclasses import replace

from skyspan.contracts.transport import Command, Effect
from skyspan.networks.changing import CHANGING, MARKING, OWNED
from skyspan.networks.routes.table import PROTOCOL, HostRoutes

TAKEN = 90
"""Exit status of `set_command` when somebody else has the stage's name."""

TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 5.0

_PLACES = (
    r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
id=$1 owner=$2 proto=$3; shift 3
store=/var/lib/skyspan state=/var/lib/skyspan/routes/$id
"""
    + OWNED
)

_CHANGES = (
    CHANGING
    + r"""drop() { # a route of ours, if it is there
  if ip -"$1" route show exact "$2" proto "$proto" metric "$3" | grep -q .; then
    step "removing the route to $2"
    ip -"$1" route delete "$2" proto "$proto" metric "$3"
  fi
}
"""
)

_SURVEY = r"""
echo @tools
for tool in ip flock; do if command -v $tool >/dev/null; then echo "$tool yes"; else echo "$tool no"; fi; done
echo @owner; cat "$state/owner" 2>/dev/null || :
echo @recorded; if ours; then cat "$state/routes" 2>/dev/null || :; fi
echo @route4; ip -4 -j route show 2>/dev/null || :
echo @route6; ip -6 -j route show 2>/dev/null || :
echo @ways
for target in $1; do echo "$target $(ip -j route get "$target" 2>/dev/null | tr -d '\n')"; done
"""

_PROBE = r"""
for target in $1; do
  case $target in *:*) family=6;; *) family=4;; esac
  echo "way $target $(ip -j route get "$target" 2>/dev/null | tr -d '\n')"
  if ip -$family route show match "$target" | grep -qv '^default'; then echo "known $target"; fi
done
printf '%s' "$2" | while read -r family prefix metric rest; do
  if ip -"$family" route show exact "$prefix" proto "$proto" metric "$metric" | grep -q .; then
    echo "there $family $prefix $metric"
  fi
done
"""
"""As much of a look as a second allows on a host that knows all networks of the Internet. Arguments: the addresses to
ask the way to, the stage's routes."""

_SET = (
    _CHANGES
    + MARKING
    + r"""
lock
step "claiming $id"
claim false
keys=$(printf '%s' "$1" | cut -d' ' -f1-3)
{ cat "$state/routes" 2>/dev/null || :; if [ -n "$keys" ]; then echo "$keys"; fi; } | sort -u | put "$state/routes"
step "setting the routes"
printf '%s' "$1" | while read -r family prefix metric rest; do
  if ! ip -"$family" route replace "$prefix" proto "$proto" metric "$metric" $rest; then
    echo "it was the route to $prefix" >&2
    exit 1
  fi
done
while read -r family prefix metric; do
  if ! echo "$keys" | grep -qxF "$family $prefix $metric"; then drop "$family" "$prefix" "$metric"; fi
done < "$state/routes"
if [ -n "$keys" ]; then echo "$keys" | sort | put "$state/routes"; else put "$state/routes" < /dev/null; fi
"""
)

_LOWER = (
    _CHANGES
    + r"""
if ours; then
  lock
  while read -r family prefix metric; do drop "$family" "$prefix" "$metric"; done < "$state/routes"
fi
"""
)

_REMOVE = (
    _CHANGES
    + MARKING
    + r"""
begin_removal "$store/routes"
if [ -e "$state/routes" ]; then
  while read -r family prefix metric; do drop "$family" "$prefix" "$metric"; done < "$state/routes"
fi
step "removing $state"
rm -f "$state/routes" "$state/routes.new"
unclaim "$store/routes"
"""
)


def _shell(script: str, wanted: HostRoutes, *arguments: str) -> tuple[str, ...]:
    names = (wanted.identity, wanted.owner, str(PROTOCOL))
    argv = ("sh", "-euc", _PLACES + script, "skyspan", *names, *arguments)
    return ("sudo", "-n", *argv) if wanted.sudo else argv


def survey_command(wanted: HostRoutes) -> Command:
    """Look at a host's routes, and at which way it sends what goes to the targets."""
    return Command(_shell(_SURVEY, wanted, " ".join(wanted.targets)), timeout_s=TIMEOUT_S, effect=Effect.READ)


def probe_command(wanted: HostRoutes) -> Command:
    """The same, only as far as it tells whether the routes are of use."""
    argv = _shell(_PROBE, replace(wanted, sudo=False), " ".join(wanted.targets), _lines(wanted))
    return Command(argv, timeout_s=PROBE_TIMEOUT_S, effect=Effect.READ)


def set_command(wanted: HostRoutes) -> Command:
    """Make the host's routes of this stage what they are to be; others are not touched."""
    return Command(_shell(_SET, wanted, _lines(wanted)), timeout_s=TIMEOUT_S)


def _lines(wanted: HostRoutes) -> str:
    return "".join(f"{route.line()}\n" for route in wanted.routes)


def lower_command(wanted: HostRoutes) -> Command:
    """Take the routes away, keep the record."""
    return Command(_shell(_LOWER, wanted), timeout_s=TIMEOUT_S)


def remove_command(wanted: HostRoutes) -> Command:
    """Take everything away."""
    return Command(_shell(_REMOVE, wanted), timeout_s=TIMEOUT_S)
