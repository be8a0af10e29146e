"""A lab of forty nodes made by `skyspan up` over SSH, beside `containerlab deploy` alone on the same host.

Both in one world of `skyspan rehearse exec`, in turns: a ring of small containers on a Docker host of its own. What is
compared is the stage, from its first look to its last; the whole command is shown beside it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from bench.processes import run
from bench.report import SELF, Measure, Row
from bench.world import World

ALONE = "containerlab deploy"
HOST = "203.0.113.10"

_ROUNDS = """
skyspan=$1 folder=$2 rounds=$3
there() { ssh -i /run/skyspan/keys/ssh_key -o UserKnownHostsFile=/run/skyspan/known_hosts root@$HOST "$@"; }
took() { name=$1; shift; began=$(date +%s.%N); "$@" > /dev/null; echo "$name $began $(date +%s.%N)"; }
own() { took up "$skyspan" up --yes -f "$folder"
  echo "stage $("$skyspan" status --json labs | tr -d '\\n ')"; took check "$skyspan" check -f "$folder"
  took destroy "$skyspan" destroy --yes -f "$folder"; }
clab="CLAB_VERSION_CHECK=disable containerlab"
alone() { took deploy there "$clab deploy -t /root/alone.clab.yml 2>&1"
  took remove there "$clab destroy -t /root/alone.clab.yml --cleanup 2>&1"; }
there "cat > /root/alone.clab.yml" < "$folder/alone.clab.yml"
number=0
while [ $number -lt "$rounds" ]; do
  if [ $((number % 2)) = 0 ]; then own; alone; else alone; own; fi
  number=$((number + 1))
done
"""


def labs(world: World) -> list[Measure]:
    """Deploying, looking at and removing a lab."""
    size = world.size(40, quick=8)
    titles = (f"making a lab of {size} nodes", f"removing a lab of {size} nodes", f"checking a lab of {size} nodes")
    path = f"{world.env['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in ("dockerd", "containerlab", "ssh") if shutil.which(name, path=path) is None]
    if os.geteuid() != 0 or missing:
        note = f"not here: {', '.join(missing)}" if missing else "needs root"
        return [Measure(title, "s", (Row(SELF, None, note=note),)) for title in titles]
    found = _measured(world, size)
    made = Measure(
        titles[0],
        "s",
        (
            Row(f"{SELF}, the stage", median(found["stage"]), note=_beside(found)),
            Row(f"{SELF} up, the whole command", median(found["up"])),
            Row(ALONE, median(found["deploy"])),
        ),
        f"{SELF} <= 1.1 beside {ALONE}",
    )
    removed = Measure(
        titles[1],
        "s",
        (Row(SELF, median(found["destroy"])), Row("containerlab destroy", median(found["remove"]))),
    )
    return [made, removed, Measure(titles[2], "s", (Row(SELF, median(found["check"])),))]


def _beside(found: Mapping[str, list[float]]) -> str:
    ratios = [own / alone for own, alone in zip(found["stage"], found["deploy"], strict=True)]
    return f"{median(ratios):.3f} beside it (median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f})"


def _measured(world: World, size: int) -> dict[str, list[float]]:
    """Seconds by what was done, round by round."""
    folder = world.fresh("labs")
    _write(folder, size)
    home = world.fresh("home")
    script = _ROUNDS.replace("$HOST", HOST)
    inside: list[str | Path] = ["sh", "-euc", script, "sh", world.skyspan, folder, str(world.rounds(5, quick=1))]
    env = {**world.env, "PATH": f"{world.env['PATH']}:/usr/sbin:/sbin"}
    argv: list[str | Path] = [world.skyspan, "--home", home, "rehearse", "exec", "-f", folder, "--", *inside]
    said = run(argv, folder, env, timeout_s=1800.0).stdout
    found: dict[str, list[float]] = {}
    for line in said.splitlines():
        words = line.split()
        if words[:1] == ["stage"]:
            (stage,) = json.loads(line.removeprefix("stage "))["stages"]
            found.setdefault("stage", []).append(float(stage["duration_s"]))
        if len(words) == 3 and words[0] in ("up", "check", "destroy", "deploy", "remove"):
            found.setdefault(words[0], []).append(float(words[2]) - float(words[1]))
    return found


def _write(folder: Path, size: int) -> None:
    capabilities = {"privileged": False, "cap-add": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]}
    node = {"kind": "linux", "image": "skyspan/busybox:1", "cmd": "sleep 3600"}
    nodes = {f"n{number}": {**node, "exec": [f"ip addr add 10.1.{number}.1/30 dev eth1"]} for number in range(size)}
    links = [{"endpoints": [f"n{number}:eth1", f"n{(number + 1) % size}:eth2"]} for number in range(size)]
    topology = {"defaults": capabilities, "nodes": nodes, "links": links}
    management = {"network": "alone", "ipv4-subnet": "172.31.200.0/24"}
    alone = {"name": "alone", "mgmt": management, "topology": topology}
    (folder / "alone.clab.yml").write_text(json.dumps(alone))
    (folder / "ring.clab.yml").write_text(json.dumps({"name": "ring", "topology": topology}))
    docker = {"docker": {"kind": "docker", "images": {"skyspan/busybox:1": "busybox"}}}
    composition = {
        "skyspan": 1,
        "name": "labs",
        "hosts": {"lab-1": {"address": HOST, "user": "root", "key": "${{ secrets.ssh_key }}"}},
        "stages": {"lab": {"uses": "containerlab", "with": {"host": "lab-1", "topology": "ring.clab.yml"}}},
        "rehearsal": {
            "sites": {"north": {"prefix": "203.0.113.0/24"}},
            "hosts": {"lab-1": {"site": "north", "address": HOST, "services": docker}},
            "secrets": {"ssh_key": "generated"},
        },
    }
    (folder / "skyspan.yaml").write_text(json.dumps(composition))
