"""What is run on a lab's host, as values: POSIX sh around containerlab and docker, idempotent, for root or sudo; pure.

A stage has one folder on the host: `owner` names the stage, `content` tells what was sent, `files` lists it, `tree`
holds it; containerlab makes its own folder beside the topology in there.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skyspan.contracts.transport import Command, Effect, StopLadder
from skyspan.model.address import StageAddress
from skyspan.model.secret import Secret
from skyspan.providers.containerlab.memory import Memory
from skyspan.providers.containerlab.template import VARIABLES, Template
from skyspan.providers.lab.containers import AS_ROOT
from skyspan.providers.lab.management import mark

STORE = "/var/lib/skyspan/labs"
PARKED = "clab-park-"
"""What the network namespace of a stopped node's interfaces is called before the container's name."""

TAKEN = 97
"""Exit status: the folder on the host belongs to another stage."""

HELD = 96
"""Exit status: Docker does not remove a network that nothing uses any more."""

LEFT = 98
"""Exit status: something of the lab is left on the host."""

TIMEOUT_S = 120.0
DEPLOY_S = 1800.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage's lab is on its host: its folder there, and who it belongs to."""

    owner: str
    folder: str

    @property
    def tree(self) -> str:
        """Where the files are."""
        return f"{self.folder}/tree"

    def made(self, file: str, lab: str) -> str:
        """The folder that containerlab makes for the lab, beside its topology at `file` in the tree."""
        folder = file.rpartition("/")[0]
        return "/".join(part for part in (self.tree, folder, f"clab-{lab}") if part)


def place_of(address: StageAddress) -> Place:
    """The place of that stage: the same every time."""
    return Place(str(address), f"{STORE}/{mark(str(address))}")


_BEGIN = (
    AS_ROOT
    + r"""
folder=$1 owner=$2; shift 2
tree=$folder/tree
clab() { as_root env CLAB_VERSION_CHECK=disable containerlab "$@"; }
guard() {
  if as_root test -e "$folder/owner" && [ "$(as_root cat "$folder/owner")" != "$owner" ]; then
    echo "$folder belongs to $(as_root cat "$folder/owner")" >&2; exit 97
  fi
}
"""
)

_SURVEY = r"""
echo @owner; as_root cat "$folder/owner" 2>/dev/null || :; echo
echo @content; as_root cat "$folder/content" 2>/dev/null || :; echo
echo @containerlab; clab version --short 2>/dev/null || :; echo
echo @docker; as_root docker version --format '{{.Server.Version}}' 2>&1 || :
echo @parked; ls /run/netns 2>/dev/null | grep '^clab-park-' || :
echo @missing
images=
while [ "$1" != -- ]; do images="$images $1"; shift; done
shift
# One call where all are there.
as_root docker image inspect --format . $images >/dev/null 2>&1 || for image in $images; do
  as_root docker image inspect --format . "$image" >/dev/null 2>&1 || echo "$image"
done
echo @bridges
while [ "$1" != -- ]; do [ -d "/sys/class/net/$1/bridge" ] || echo "$1"; shift; done
shift
echo @others
for name in "$@"; do
  [ "$(as_root docker inspect --format '{{.State.Running}}' "$name" 2>&1)" = true ] || echo "$name"
done
"""

_RENDER = (
    AS_ROOT
    + r"""
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
base64 -d | tar -xf -
inside='
. ./environment
export CLAB_VERSION_CHECK=disable
exec containerlab deploy --dry-run -t "$1" ${2:+--vars "$2"} --export-rendered rendered
'
as_root sh -c "$inside" sh "topology/$1" "$2" >said 2>&1 || :
if [ -s rendered ]; then cat rendered; else cat said >&2; exit 1; fi
"""
)

_SHIP = r"""
content=$1
guard
umask 022
as_root mkdir -p "$tree"
# A topology may hold passwords. Docker binds files as root, whatever the folders above them allow.
as_root chmod 700 "$folder"
trap 'as_root rm -f "$folder/new.tar" "$folder/files.new"' EXIT
printf '%s' "$owner" | as_root tee "$folder/owner" >/dev/null
as_root rm -f "$folder/content"
# By a file, so that a full disk is met before anything of the lab is replaced.
base64 -d | as_root tee "$folder/new.tar" >/dev/null
as_root tar -tf "$folder/new.tar" | as_root tee "$folder/files.new" >/dev/null
if as_root test -e "$folder/files"; then
  as_root cat "$folder/files" | as_root grep -vxFf "$folder/files.new" | while IFS= read -r old; do
    as_root rm -f "$tree/$old" 2>/dev/null || as_root rmdir "$tree/$old" 2>/dev/null || :
  done || :
fi
as_root mv "$folder/files.new" "$folder/files"
as_root tar -xf "$folder/new.tar" -C "$tree" --no-same-owner -p
as_root rm -f "$folder/new.tar"
printf '%s' "$content" | as_root tee "$folder/content.new" >/dev/null
as_root mv "$folder/content.new" "$folder/content"
"""

_MEND = r"""
while [ "$1" != -- ]; do
  echo "removing $1"; as_root docker rm -f "$1" >/dev/null
  as_root ip netns delete "clab-park-$1" 2>/dev/null || :
  shift
done
shift
for container in "$@"; do echo "starting $container"; as_root docker start "$container" >/dev/null; done
"""

_UNLINK = r"""
pid=$(as_root docker inspect --format '{{.State.Pid}}' "$1")
as_root nsenter -t "$pid" -n ip link delete "$2"
"""

_DEPLOY = r"""
guard
clab deploy -t "$tree/$1" --format json >/dev/null
"""

_EACH = r"""
verb=$1 grace=$2 file=$tree/$3; shift 3
guard
for node in "$@"; do printf '%s\n' "$node"; done |
  as_root env CLAB_VERSION_CHECK=disable xargs -P 8 -n 1 containerlab "$verb" -t "$file" --timeout "${grace}s" --node
"""

_SWEEP = r"""
lab=$1 network=$2 file=$3 prefix=$4 bridge=$5; shift 5
guard
unruled() {
  for tool in iptables ip6tables; do
    if command -v $tool >/dev/null; then
      as_root $tool -S | grep -F 'set by containerlab' | grep -E -e "^-A [^ ]+ -[io] $1 " | sed 's/^-A/-D/' |
        as_root xargs -r -L 1 $tool
    fi
  done
}
every() {
  look='{{.Names}} {{.Label "clab-topo-file"}}'
  as_root docker ps -a --no-trunc --filter "label=containerlab=$lab" --format "$look"
}
mine() { while read -r name path; do case $path in "$tree"/*) echo "$name";; esac; done; }
names=$(every | mine)
if [ -n "$names" ] && as_root test -e "$tree/$file"; then
  clab destroy -t "$tree/$file" --cleanup || :
fi
others=$(every)
left=$(printf '%s\n' "$others" | mine)
if [ -n "$left" ]; then
  for name in $left; do as_root docker rm -f "$name" >/dev/null; done
  others=$(every)
  left=$(printf '%s\n' "$others" | mine)
fi
if [ -n "$left" ]; then echo "containers are left: $left" >&2; exit 98; fi
for name in $names; do
  for space in "$name" "clab-park-$name"; do
    if [ -e "/run/netns/$space" ] || [ -L "/run/netns/$space" ]; then
      as_root ip netns delete "$space" 2>/dev/null || as_root rm -f "/run/netns/$space"
    fi
  done
done
# Nodes that went earlier leave names of network namespaces that lead nowhere.
if [ -n "$prefix" ]; then
  for space in /run/netns/"$prefix"*; do
    if [ -L "$space" ] && ! [ -e "$space" ]; then as_root rm -f "$space"; fi
  done
fi
if [ -z "$others" ]; then
  as_root rm -f "/etc/ssh/ssh_config.d/clab-$lab.conf"
  if grep -qxF "###### CLAB-$lab-START ######" /etc/hosts; then
    kept=$(awk -v a="###### CLAB-$lab-START ######" -v b="###### CLAB-$lab-END ######" \
      '$0 == a {skip = 1} !skip {print} $0 == b {skip = 0}' /etc/hosts)
    printf '%s\n' "$kept" | as_root tee /etc/hosts >/dev/null
  fi
fi
if [ -n "$network" ]; then
  form='{{range $key, $value := .Labels}}{{$key}} {{end}}/{{len .Containers}}'
  # What was removed a moment ago may still be attached.
  for pause in 0.2 0.5 1 2 ''; do
    case $(as_root docker network inspect --format "$form" "$network" 2>/dev/null) in
      *containerlab*/0) if as_root docker network rm "$network" >/dev/null 2>&1; then break; fi;;
      *) break;;
    esac
    if [ -z "$pause" ]; then echo "Docker does not let go of the network $network" >&2; exit 96; fi
    sleep "$pause"
  done
fi
# Rules for the network's bridge when no lab is in it any more, and for bridges of the host that nothing uses.
others() { as_root docker ps -aq --filter label=containerlab --filter "network=$network"; }
if [ -n "$bridge" ] && { ! [ -e "/sys/class/net/$bridge" ] || [ -z "$(others)" ]; }; then unruled "$bridge"; fi
for other in "$@"; do
  if [ -z "$(ls "/sys/class/net/$other/brif" 2>/dev/null)" ]; then unruled "$other"; fi
done
as_root rm -rf "$folder"
as_root rmdir "${folder%/*}" "${folder%/*/*}" 2>/dev/null || :
"""


def _shell(script: str, place: Place, *arguments: str) -> tuple[str, ...]:
    return ("sh", "-euc", _BEGIN + script, "skyspan", place.folder, place.owner, *arguments)


def survey_command(place: Place, images: Sequence[str], bridges: Sequence[str], others: Sequence[str]) -> Command:
    """Look at what there is for the stage on its host: its folder, tools, parked nodes, and which images, bridges of
    the host and containers of others are not there."""
    needs = (*images, "--", *bridges, "--", *others)
    return Command(_shell(_SURVEY, place, *needs), timeout_s=TIMEOUT_S, effect=Effect.READ)


def render_command(template: Template) -> Command:
    """Have the host's containerlab render a Go template; nothing of it is left there, and no lab is looked at."""
    argv = ("sh", "-euc", _RENDER, "skyspan", template.name, VARIABLES if template.variables else "")
    text = Secret(base64.b64encode(template.archive()).decode())  # variables may be passwords
    return Command(argv, stdin=text, timeout_s=TIMEOUT_S, effect=Effect.READ)


def ship_command(place: Place, content: str, archive: bytes) -> Command:
    """Have exactly these files in the stage's folder; files of an earlier shipment that are not among them go."""
    text = Secret(base64.b64encode(archive).decode())  # a topology may hold passwords
    return Command(_shell(_SHIP, place, content), stdin=text, timeout_s=DEPLOY_S)


def pull_command(image: str) -> Command:
    """Have the host's Docker pull an image."""
    return Command(("sh", "-euc", AS_ROOT + 'as_root docker pull "$1"', "skyspan", image), timeout_s=DEPLOY_S)


def mend_command(place: Place, removed: Sequence[str], started: Sequence[str]) -> Command:
    """Remove containers that cannot go on, and start those that can."""
    return Command(_shell(_MEND, place, *removed, "--", *started), timeout_s=TIMEOUT_S)


def unlink_command(place: Place, container: str, interface: str) -> Command:
    """Take an interface away from a container, and its peer with it."""
    return Command(_shell(_UNLINK, place, container, interface), timeout_s=TIMEOUT_S)


def deploy_command(place: Place, file: str) -> Command:
    """Deploy the lab, or reconcile the one that runs. `file` is the topology's path in the tree."""
    # Interrupted, containerlab leaves what it made so far; the next apply goes on from there.
    return Command(_shell(_DEPLOY, place, file), timeout_s=DEPLOY_S, ladder=StopLadder(10.0, 5.0))


def stop_command(place: Place, file: str, nodes: Sequence[str], grace_s: float) -> Command:
    """Stop those nodes, their interfaces parked on the host."""
    arguments = ("stop", f"{max(1, round(grace_s))}", file, *nodes)
    return Command(_shell(_EACH, place, *arguments), timeout_s=DEPLOY_S)


def start_command(place: Place, file: str, nodes: Sequence[str]) -> Command:
    """Start nodes that were stopped so, with their interfaces and their commands."""
    return Command(_shell(_EACH, place, "start", f"{TIMEOUT_S:g}", file, *nodes), timeout_s=DEPLOY_S)


def sweep_command(place: Place, memory: Memory, prefix: str, bridges: Sequence[str]) -> Command:
    """Remove the lab and everything of the stage; fails when something is left. Containers' names begin with
    `prefix`. The network goes when containerlab made it and nothing else is in it; of the host's own `bridges`,
    containerlab's rules go."""
    management = memory.management
    arguments = (memory.lab, management.network, memory.file, prefix, management.bridge, *bridges)
    return Command(_shell(_SWEEP, place, *arguments), timeout_s=DEPLOY_S)


def sections(text: str) -> Mapping[str, list[str]]:
    """What the survey prints, by section."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            lines = found.setdefault(line[1:], [])
        elif line:
            lines.append(line)
    return found
