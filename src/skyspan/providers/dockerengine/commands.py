"""How a daemon is asked, as values: one shell script per step, in which `d` is the docker command (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skyspan.contracts.transport import Command, Effect, StopLadder
from skyspan.model.secret import Secret
from skyspan.providers.dockerengine.parse import BUILT, OWNER

NO_DOCKER = 97
"""Exit status of every script where there is no docker command."""

LOOK_TIMEOUT_S = 60.0

IN_TEMPORARY = r"""
umask 077
t=$(mktemp -d "${TMPDIR:-/tmp}/skyspan.XXXXXXXX"); trap 'rm -rf "$t"' EXIT; trap 'exit 143' TERM
"""
"""Opens a script that has a folder of its own, `$t`, for as long as it runs."""

_LADDER = StopLadder(first_s=15.0, second_s=5.0)

_CONTAINER = (
    '{"id":{{json .Id}},"name":{{json .Name}},"state":{{json .State}},"image":{{json .Config.Image}},'
    '"image_id":{{json .Image}},"labels":{{json .Config.Labels}},"restarts":{{json .RestartCount}},'
    '"net":{"Networks":{{json .NetworkSettings.Networks}},"Ports":{{json .NetworkSettings.Ports}}}}'
)

_TAG = '{{if eq .Repository "<none>"}}{{.ID}}{{else}}{{.Repository}}:{{.Tag}}{{end}}'

_LOOK = r"""
filter=$1 names=$2 images=$3 networks=$4 parts=$5 form=$6 owner=$7 whose=$8 built=$9 tag=${10}
# The list comes first: it tells whether anybody answers. All else is asked for at once, as each takes its time.
all=$(d ps -a --no-trunc --format "{{.ID}} {{.Names}} {{.Label \"${filter%%=*}\"}}")
ids=$(printf '%s\n' "$all" | while read -r id name label; do
  case " $names " in *" $name "*) echo "$id"; continue;; esac
  if [ "$label" = "${filter#*=}" ]; then echo "$id"; fi
done)
# What vanishes between listing and asking is gone; a daemon that does not answer any more is an error.
containers() {
  [ -z "$ids" ] || d container inspect --format "$form" $ids 2>/dev/null || d version >/dev/null
}
networks() {
  all=$(d network ls --no-trunc --format "{{.ID}} {{.Name}} {{.Label \"$owner\"}}")
  nets=$(printf '%s\n' "$all" | while read -r id name label; do
    case " $networks " in " * "|*" $name "*) echo "$id"; continue;; esac
    if [ "$label" = "$whose" ]; then echo "$id"; fi
  done)
  [ -z "$nets" ] || d network inspect --format '{{json .}}' $nets 2>/dev/null || d version >/dev/null
}
images() {
  if ids=$(d image inspect --format '{{.Id}}' $images 2>/dev/null); then
    set -- $ids
    for image in $images; do echo "$image $1"; shift; done
  else
    for image in $images; do echo "$image $(d image inspect --format '{{.Id}}' "$image" 2>/dev/null || :)"; done
  fi
}
volumes() { d volume ls --format "{{.Name}} {{.Label \"$owner\"}}"; }
built() { d image ls --filter "label=$built=$whose" --format "$tag"; }
version() { d version --format '{{json .}}'; }
routes() {
  if command -v ip >/dev/null 2>&1; then ip -4 route show table main || :; ip -6 route show table main || :; fi
}
links() { ls /sys/class/net 2>/dev/null || :; }
asked= status=0
for part in $parts; do $part > "$t/$part" & asked="$asked $!"; done
for one in $asked; do wait "$one" || status=$?; done
if [ "$status" != 0 ]; then exit "$status"; fi
for part in $parts; do echo "@$part"; cat "$t/$part"; done
"""


class Scope(StrEnum):
    """How far a look goes: each part beyond the containers costs a command of the docker client."""

    STATES = "containers"
    """The containers with its label."""
    OWN = "containers networks images"
    """Besides, the stage's own networks, and what `Sight` names."""
    PLAN = "containers networks images volumes version"
    """Besides, what a plan needs: all volumes, and the daemon's version."""
    WHOLE = "containers networks images volumes version built routes links"
    """All that may stand in the way: all networks, the machine's routes and interfaces."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look sees beside the containers with its label: containers called `names`, the ids of `images`, `networks`
    by name, and with `more` also `volumes` (the owner of each) or `built` (the images that the stage built)."""

    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    scope: Scope = Scope.OWN
    more: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """What is asked for, by the names of the script's sections."""
        asked = dict.fromkeys([*self.scope.value.split(), *self.more])
        return tuple(part for part in asked if part != "images" or self.images)


_INTERRUPTIBLE = r"""
# A shell hears of a signal only when its foreground command has ended: so all of it goes on in the background.
exec 3<&0
trap 'trap "" TERM; kill -TERM 0; wait; exit 130' INT HUP
{{
{body}
}} <&3 3<&- &
wait "$!"
"""


def script(
    words: Sequence[str],
    body: str,
    *arguments: str,
    effect: Effect = Effect.WRITE,
    stdin: bytes | Secret = b"",
    env: Mapping[str, str | Secret] | None = None,
    timeout_s: float | None = None,
) -> Command:
    """`body` for `sh -eu`, in which `d` is the docker command with `words` behind it (its endpoint)."""
    command = shlex.join(["command", "docker", *words])
    start = f'command -v docker >/dev/null 2>&1 || exit {NO_DOCKER}\nd() {{ {command} "$@"; }}\n'
    return Command(
        ("sh", "-euc", start + _INTERRUPTIBLE.format(body=body.strip("\n")), "skyspan", *arguments),
        env=env or {},
        stdin=stdin,
        effect=effect,
        timeout_s=timeout_s,
        ladder=_LADDER,
    )


def building(called: str) -> str:
    """`called`, which builds images, so that nothing without a name is left of it; stands behind `IN_TEMPORARY`."""
    return _BUILDING.format(called=called)


_BUILDING = r"""
unnamed() {{ d image ls -q --filter dangling=true; }}
before=$(unnamed)
# The builder without BuildKit leaves the images of its steps behind when it fails, and those of stages in any case.
tidy() {{
  for id in $(unnamed); do
    case $before in *"$id"*) continue;; esac
    if grep -qxF -e " ---> $id" "$t/said"; then d image rm "$id" >/dev/null || :; fi
  done
  rm -rf "$t"
}}
: > "$t/said"; trap tidy EXIT
{{ {called} || echo $? > "$t/failed"; }} | tee "$t/said"
if [ -e "$t/failed" ]; then exit "$(cat "$t/failed")"; fi
"""


def look(words: Sequence[str], label: str, whose: str, sight: Sight) -> Command:
    """The containers with a label (`name=value`), and what `sight` asks for besides, of the stage `whose`: one command,
    whatever it finds."""
    networks = "*" if sight.scope is Scope.WHOLE else " ".join(sight.networks)
    lists = (" ".join(sight.names), " ".join(dict.fromkeys(sight.images)), networks, " ".join(sight.parts))
    arguments = (label, *lists, _CONTAINER, OWNER, whose, BUILT, _TAG)
    return script(words, IN_TEMPORARY + _LOOK, *arguments, effect=Effect.READ, timeout_s=LOOK_TIMEOUT_S)


def logs(words: Sequence[str], container: str, lines: int) -> Command:
    """The last lines of a container, standard error among them."""
    body = 'd logs --tail "$2" "$1" 2>&1'
    return script(words, body, container, str(lines), effect=Effect.READ, timeout_s=LOOK_TIMEOUT_S)


def stop(words: Sequence[str], containers: Sequence[str]) -> Command:
    """Stop containers, each within its own time; stopped or gone is success."""
    return script(words, _STOP, *containers)


_STOP = r"""
d stop "$@" >/dev/null || {
  d version >/dev/null
  for id; do
    if [ "$(d inspect -f "{{.State.Running}}" "$id" 2>/dev/null || :)" = true ]; then exit 1; fi
  done
}
"""


def remove(
    words: Sequence[str],
    containers: Sequence[str],
    networks: Sequence[str] = (),
    volumes: Sequence[str] = (),
    images: Sequence[str] = (),
) -> Command:
    """Stop and remove containers with their anonymous volumes, then networks, volumes and images; gone is success."""
    return script(words, _REMOVE, *(" ".join(part) for part in (containers, networks, volumes, images)))


_REMOVE = r"""
containers=$1 networks=$2 volumes=$3 images=$4
if [ -n "$containers" ]; then
  d stop $containers >/dev/null 2>&1 || :
  d rm -f -v $containers >/dev/null 2>&1 || for one in $containers; do
    if [ -n "$(d ps -aq --no-trunc --filter "id=$one")" ]; then d rm -f -v "$one" >/dev/null; fi
  done
fi
for one in $networks; do
  d network rm "$one" >/dev/null 2>&1 ||
    if [ -n "$(d network ls -q --no-trunc --filter "id=$one")" ]; then d network rm "$one" >/dev/null; fi
done
for one in $volumes; do
  if d volume inspect "$one" >/dev/null 2>&1; then d volume rm "$one" >/dev/null; fi
done
for one in $images; do
  if d image inspect "$one" >/dev/null 2>&1; then d image rm "$one" >/dev/null; fi
done
"""
