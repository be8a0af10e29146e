"""How a daemon is asked, as values: one shell script per step, in which `d` is the docker command (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skyspan.contracts.transport import Command, Effect, StopLadder
from skyspan.model.secret import Secret
from skyspan.providers.dockerengine.parse import OWNER

NO_DOCKER = 97
"""Exit status of every script where there is no docker command."""

LOOK_TIMEOUT_S = 60.0

_LADDER = StopLadder(first_s=15.0, second_s=5.0)

_CONTAINER = (
    '{"id":{{json .Id}},"name":{{json .Name}},"state":{{json .State}},"image":{{json .Config.Image}},'
    '"image_id":{{json .Image}},"labels":{{json .Config.Labels}},"restarts":{{json .RestartCount}},'
    '"net":{"Networks":{{json .NetworkSettings.Networks}},"Ports":{{json .NetworkSettings.Ports}}}}'
)

_LOOK = r"""
filter=$1 names=$2 images=$3 networks=$4 flags=$5 form=$6 owner=$7 whose=$8
case $flags in *whole*) echo @version; d version --format '{{json .}}';; esac
all=$(d ps -a --no-trunc --format "{{.ID}} {{.Names}} {{.Label \"${filter%%=*}\"}}")
ids=$(printf '%s\n' "$all" | while read -r id name label; do
  case " $names " in *" $name "*) echo "$id"; continue;; esac
  if [ "$label" = "${filter#*=}" ]; then echo "$id"; fi
done)
# What vanishes between listing and asking is gone; a daemon that does not answer any more is an error.
echo @containers
if [ -n "$ids" ] && ! said=$(d container inspect --format "$form" $ids 2>/dev/null); then d version >/dev/null; fi
printf '%s\n' "${said:-}"
echo @networks
all=$(d network ls --no-trunc --format "{{.ID}} {{.Name}} {{.Label \"$owner\"}}"); said=
nets=$(printf '%s\n' "$all" | while read -r id name label; do
  case " $flags $networks " in *" whole "*|*" $name "*) echo "$id"; continue;; esac
  if [ "$label" = "$whose" ]; then echo "$id"; fi
done)
if [ -n "$nets" ] && ! said=$(d network inspect --format '{{json .}}' $nets 2>/dev/null); then d version >/dev/null; fi
printf '%s\n' "$said"
case $flags in *volumes*) echo @volumes; d volume ls --format "{{.Name}} {{.Label \"$owner\"}}";; esac
echo @images
for image in $images; do echo "$image $(d image inspect --format '{{.Id}}' "$image" 2>/dev/null || :)"; done
case $flags in *whole*) ;; *) exit 0;; esac
echo @routes
if command -v ip >/dev/null 2>&1; then ip -4 route show table main || :; ip -6 route show table main || :; fi
echo @links; ls /sys/class/net 2>/dev/null || :
"""


@dataclass(frozen=True, slots=True)
class Sight:
    """How far a look goes beyond the containers with its label and the stage's own networks: each part costs a command
    of the docker client. `names` are more containers, `networks` more networks, `images` those whose ids are told,
    `volumes` tells the owner of each volume; `whole` tells the daemon's version, all networks and the machine's routes.
    """

    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: bool = False
    whole: bool = False


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


def look(words: Sequence[str], label: str, whose: str, sight: Sight) -> Command:
    """The containers with a label (`name=value`), the networks of the stage `whose`, and what `sight` asks for besides:
    one command, whatever it finds."""
    flags = " ".join(name for name, wished in (("volumes", sight.volumes), ("whole", sight.whole)) if wished)
    lists = (sight.names, dict.fromkeys(sight.images), sight.networks)
    arguments = (label, *(" ".join(part) for part in lists), flags, _CONTAINER, OWNER, whose)
    return script(words, _LOOK, *arguments, effect=Effect.READ, timeout_s=LOOK_TIMEOUT_S)


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


def remove(words: Sequence[str], containers: Sequence[str], networks: Sequence[str], volumes: Sequence[str]) -> Command:
    """Stop and remove containers with their anonymous volumes, then networks and volumes; gone is success."""
    return script(words, _REMOVE, " ".join(containers), " ".join(networks), " ".join(volumes))


_REMOVE = r"""
containers=$1 networks=$2 volumes=$3
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
"""
