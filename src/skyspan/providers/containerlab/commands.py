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
for image in "$@"; do as_root docker image inspect --format . "$image" >/dev/null 2>&1 || echo "$image"; done
"""

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
    as_root rm -f "$tree/$old"
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
cd "$tree/$1"
clab deploy -t "$2" --format json >/dev/null
"""

_STOP = r"""
grace=$1; cd "$tree/$2"; file=$3; shift 3
guard
for node in "$@"; do printf '%s\n' "$node"; done |
  as_root env CLAB_VERSION_CHECK=disable xargs -P 8 -n 1 containerlab stop -t "$file" --timeout "${grace}s" --node
"""

_SWEEP = r"""
lab=$1 network=$2 file=$3 prefix=$4
guard
mine() {
  look='{{.Names}} {{.Label "clab-topo-file"}}'
  as_root docker ps -a --no-trunc --filter "label=containerlab=$lab" --format "$look" |
    while read -r name path; do case $path in "$tree"/*) echo "$name";; esac; done
}
names=$(mine)
if [ -n "$names" ] && as_root test -e "$tree/$file"; then
  clab destroy -t "$tree/$file" --cleanup || :
fi
for name in $(mine); do as_root docker rm -f "$name" >/dev/null; done
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
others=$(as_root docker ps -aq --filter "label=containerlab=$lab")
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
left=$(mine)
if [ -n "$left" ]; then echo "containers are left: $left" >&2; exit 98; fi
as_root rm -rf "$folder"
as_root rmdir "${folder%/*}" "${folder%/*/*}" 2>/dev/null || :
"""


def _shell(script: str, place: Place, *arguments: str) -> tuple[str, ...]:
    return ("sh", "-euc", _BEGIN + script, "skyspan", place.folder, place.owner, *arguments)


def survey_command(place: Place, images: Sequence[str]) -> Command:
    """Look at what there is for the stage on its host: its folder, tools, parked nodes, images that are missing."""
    return Command(_shell(_SURVEY, place, *images), timeout_s=TIMEOUT_S, effect=Effect.READ)


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
    folder, _, name = file.rpartition("/")
    # Interrupted, containerlab leaves what it made so far; the next apply goes on from there.
    return Command(_shell(_DEPLOY, place, folder or ".", name), timeout_s=DEPLOY_S, ladder=StopLadder(10.0, 5.0))


def stop_command(place: Place, file: str, nodes: Sequence[str], grace_s: float) -> Command:
    """Stop those nodes, their interfaces parked on the host."""
    folder, _, name = file.rpartition("/")
    arguments = (f"{max(1, round(grace_s))}", folder or ".", name, *nodes)
    return Command(_shell(_STOP, place, *arguments), timeout_s=DEPLOY_S)


def sweep_command(place: Place, memory: Memory, prefix: str) -> Command:
    """Remove the lab and everything of the stage; fails when something is left. Containers' names begin with
    `prefix`. The network goes when containerlab made it and nothing else is in it."""
    arguments = (memory.lab, memory.management.network, memory.file, prefix)
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
