"""The effects on a lab's host: look, survey, render, ship, mend, deploy, run commands in nodes, stop, sweep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.model.error import SpecError, StageError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.containerlab import commands
from skyspan.providers.containerlab.commands import Place
from skyspan.providers.containerlab.executed import STOPPED
from skyspan.providers.containerlab.memory import Memory
from skyspan.providers.containerlab.template import Template, rendered
from skyspan.providers.containerlab.topology import Topology
from skyspan.providers.lab.containers import (
    LAB_LABEL,
    NODE_LABEL,
    TOPOLOGY_LABEL,
    Container,
    HostLook,
    docker_trouble,
    look_command,
    read_look,
)
from skyspan.providers.lab.topology import LabLink
from skyspan.providers.lab.waiting import inside_command
from skyspan.providers.masking import mask_secrets

_CONTAINERLAB, _DOCKER = (0, 79), (20, 10)
_GET_CONTAINERLAB = "containerlab.dev/install says how; 0.79 or later reconciles a lab that runs"
_GOES_ON = "what was made so far is kept: the next `up` goes on from there, `destroy` removes it"
_MEANINGS: Sequence[tuple[str, str]] = (
    (
        r"(?i)caps.*operation not permitted",
        "the host does not allow privileged containers: give the stage "
        "`defaults: {privileged: false, cap-add: [NET_ADMIN, NET_RAW, SYS_ADMIN]}`",
    ),
    (
        r"Pool overlaps|overlaps with",
        "another network of the host has this subnet: give `mgmt` of the topology another, or leave it out",
    ),
    (
        r"(?i)containers .* already exist|is already in use by container",
        "a container of that name is there, made by somebody else: give the topology a `prefix`, or remove it there",
    ),
    (
        r"[Ii]nterface .* already exists",
        "the host has an interface of that name already: name another one, or delete it there (`ip link delete`)",
    ),
    (
        r"operation not supported",
        "the host's kernel does not have what a link needs (dummy, macvlan, vxlan): load its module there",
    ),
    (
        r"Failed to pull image",
        "the topology's `image-pull-policy` asks a registry: `IfNotPresent` takes the image that is there",
    ),
    (
        r"requires API version",
        "nodes of this kind need a newer Docker there: API 1.44 came with Docker 25",
    ),
    (
        r"(?i)virtualization support|/dev/kvm",
        "nodes of this kind are virtual machines in a container: the host needs /dev/kvm",
    ),
)
"""What containerlab's words mostly mean, the first that fits."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_IN_NODE_S, _TIMES = 60.0, 3


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is for the stage: the content that was sent, names of parked containers, images that are missing."""

    content: str
    parked: tuple[str, ...]
    missing: tuple[str, ...]


def where(host: str | None) -> str:
    """The host in words."""
    return host or "this machine"


async def look(host: str | None, ctx: ReadContext, lab: str = "", others: Sequence[str] = ()) -> HostLook:
    """The containers of that lab, or those of all labs with the host's networks and routes, and `others` by name, in
    one command."""
    label = f"{LAB_LABEL}={lab}" if lab else LAB_LABEL
    done = await ctx.places.reach(host).query(look_command(label, networks=not lab, names=others))
    return read_look(done, where(host))


def ours(seen: HostLook, place: Place, lab: str | None = None) -> dict[str, Container]:
    """The containers of the stage by node."""
    return {
        item.labels.get(NODE_LABEL, item.name): item
        for item in seen.containers
        if item.labels.get(TOPOLOGY_LABEL, "").startswith(f"{place.tree}/")
        and lab in (None, item.labels.get(LAB_LABEL))
    }


def with_others(found: Mapping[str, Container], seen: HostLook, topology: Topology) -> dict[str, Container]:
    """The same with the containers that nodes of the lab are, though others make them."""
    return {**found, **{item.name: item for item in seen.containers if item.name in topology.others}}


def refuse_taken(seen: HostLook, place: Place, lab: str, host: str | None) -> None:
    """Raise SpecError when a lab of that name on the host is somebody else's."""
    for item in seen.containers:
        path = item.labels.get(TOPOLOGY_LABEL, "")
        if item.labels.get(LAB_LABEL) == lab and not path.startswith(f"{place.tree}/"):
            raise SpecError(
                f"a lab called {lab} is already on {where(host)}, and it is not this stage's",
                detail=f"its container {item.name} was made from {path or 'an unknown topology'}",
                hint="give this one another `name`, or destroy that one: containerlab destroy --name " + lab,
            )


async def survey(place: Place, host: str | None, topology: Topology, ctx: ReadContext) -> Survey:
    """What there is for the stage. Raises ToolMissingError and its like for tools that cannot do, SpecError when the
    stage's folder is another one's, or when something is not there that the lab is to be connected to."""
    needs = (topology.images, topology.bridges, topology.others)
    done = await ctx.places.reach(host).query(commands.survey_command(place, *needs))
    if not done.ok:
        raise docker_trouble(done, where(host), "looking at what the lab needs")
    found = commands.sections(done.text())
    owner = "".join(found["owner"])
    if owner not in ("", place.owner):
        raise SpecError(f"{place.folder} on {where(host)} belongs to {owner}", hint="rename the stage")
    _require(found, host)
    for bridge in found["bridges"]:
        hint = f"make it: ip link add {bridge} type bridge && ip link set {bridge} up"
        raise SpecError(f"there is no bridge {bridge} on {where(host)}, which the lab is connected to", hint=hint)
    for name in found["others"]:
        hint = "containerlab does not make what is of kind ext-container: start it first, or in a stage that is needed"
        raise SpecError(
            f"the container {name}, which the lab is connected to, does not run on {where(host)}", hint=hint
        )
    return Survey("".join(found["content"]), _parked(found["parked"]), tuple(found["missing"]))


async def render(template: Template, host: str | None, ctx: ReadContext) -> str:
    """The topology that containerlab makes of a Go template. Raises SpecError with its words when it cannot."""
    done = await ctx.places.reach(host).query(commands.render_command(template))
    text = rendered(done.text()) if done.ok else None
    if text is not None:
        return text
    words = _last_lines(done)
    if "containerlab: not found" in words or "command not found" in words:
        raise ToolMissingError(f"there is no containerlab on {where(host)}", detail=words, hint=_GET_CONTAINERLAB)
    if "failed to read topology file" in words.lower():
        hint = "variables come from the files NAME_vars.* beside it, or from `vars`"
        raise SpecError(f"the template {template.name} cannot be rendered", detail=words, hint=hint)
    raise docker_trouble(Completed(done.exit_code, stderr=words.encode()), where(host), f"rendering {template.name}")


async def ship(place: Place, host: str | None, content: str, archive: bytes, ctx: StageContext) -> None:
    """Send the files."""
    ctx.report.line(f"sending {len(archive)} bytes of files to {where(host)}")
    await _run(commands.ship_command(place, content, archive), host, "sending the lab's files", ctx)


async def pull(host: str | None, images: Sequence[str], ctx: StageContext) -> None:
    """Pull images, one after the other."""
    for image in images:
        ctx.report.line(f"pulling {image}")
        done = await ctx.places.reach(host).run(commands.pull_command(image), ctx.report.output)
        if not done.ok:
            error = _failed(done, host, f"pulling {image}")
            hint = "is its registry reached from there, and logged in to (`docker login`)? or name another by `images`"
            raise type(error)(error.summary, detail=error.detail, hint=error.hint or hint)


async def mend(
    place: Place, host: str | None, removed: Sequence[str], started: Sequence[str], ctx: StageContext
) -> None:
    """Remove containers that cannot go on, start those that can."""
    if removed or started:
        await _run(commands.mend_command(place, removed, started), host, "mending the lab", ctx)


async def deploy(place: Place, host: str | None, file: str, ctx: StageContext) -> str:
    """Have containerlab make the lab so; what it said."""
    done = await ctx.places.reach(host).run(commands.deploy_command(place, file), ctx.report.output)
    if not done.ok:
        raise _deploy_failed(done, host)
    return _said(done)


async def unlink(
    place: Place,
    host: str | None,
    links: Sequence[LabLink],
    containers: Mapping[str, Container],
    ctx: StageContext,
) -> None:
    """Take links away at one of their ends; the other end goes with it."""
    for link in links:
        ends = [(containers[node], name) for node, name in link.ends if node in containers]
        for container, name in ends[:1]:
            if container.running and container.interface(name) is not None:
                await _run(commands.unlink_command(place, container.name, name), host, f"taking {name} away", ctx)


async def run_in_node(
    host: str | None, container: str, argv: Sequence[str], secrets: Iterable[Secret], ctx: StageContext
) -> None:
    """Run a command of the topology's `exec` again. As in containerlab, one that fails is told and no more; one that
    something in the node stopped is repeated."""
    command = inside_command(container, argv, effect=Effect.WRITE, timeout_s=_IN_NODE_S)
    for left in reversed(range(_TIMES)):
        done = await ctx.places.reach(host).run(command)
        said = "" if done.ok else f": exit status {done.exit_code}: {done.last_words(2)}"
        ctx.report.line(mask_secrets(f"{container}: {' '.join(argv)}{said}", secrets))
        if not left or done.timed_out or done.exit_code not in STOPPED:
            return


async def stop(
    place: Place, host: str | None, file: str, nodes: Sequence[str], grace_s: float, ctx: StageContext
) -> None:
    """Stop nodes, their links kept."""
    if nodes:
        await _run(commands.stop_command(place, file, nodes, grace_s), host, "stopping the lab", ctx)


async def start(place: Place, host: str | None, file: str, nodes: Sequence[str], ctx: StageContext) -> str:
    """Start nodes whose interfaces are parked, by the topology that is on the host; what containerlab said."""
    return _said(await _run(commands.start_command(place, file, nodes), host, "starting the lab", ctx))


async def sweep(place: Place, memory: Memory, topology: Topology, ctx: StageContext) -> None:
    """Remove the lab, which `topology` was applied to, and the stage's folder, and see that nothing is left."""
    command = commands.sweep_command(place, memory, topology.prefix, topology.bridges)
    await _run(command, memory.host, "removing the lab", ctx)


def disowned(error: StageError) -> bool:
    """Whether containerlab takes its own interface on the host for somebody else's: it marks them by another name,
    which not every kernel has (links/ownership.go)."""
    return "not containerlab-owned" in " ".join(error.detail.split())


def lab_containers(containers: Mapping[str, Container]) -> dict[str, tuple[str, str]]:
    """By node, its container and its management address, for waiting."""
    return {
        node: (item.name, next((net.ipv4 or net.ipv6 for net in item.attached if net.ipv4 or net.ipv6), ""))
        for node, item in containers.items()
    }


def _require(found: Mapping[str, list[str]], host: str | None) -> None:
    said = "\n".join(found["docker"])
    version = _version(said)
    if version is None:
        raise docker_trouble(Completed(1, stderr=said.encode()), where(host), "asking Docker for its version")
    if version < _DOCKER:
        raise ToolMissingError(f"Docker {said.strip()} on {where(host)} is too old", hint="20.10 or later is needed")
    text = "".join(found["containerlab"])
    tool = _version(text)
    if tool is None:
        raise ToolMissingError(f"there is no containerlab on {where(host)}", hint=_GET_CONTAINERLAB)
    if tool < _CONTAINERLAB:
        raise ToolMissingError(f"containerlab {text} on {where(host)} is too old", hint=_GET_CONTAINERLAB)


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"\s*v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _parked(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(line.removeprefix(commands.PARKED) for line in lines)


async def _run(command: Command, host: str | None, what: str, ctx: StageContext) -> Completed:
    done = await ctx.places.reach(host).run(command, ctx.report.output)
    if not done.ok:
        raise _failed(done, host, what)
    return done


def _failed(done: Completed, host: str | None, what: str) -> StageError:
    if done.exit_code == commands.TAKEN:
        return SpecError(f"{what} on {where(host)} is refused", detail=done.last_words(), hint="rename the stage")
    if done.exit_code == commands.HELD:
        hint = f"Docker miscounts what is attached to it; restart it on {where(host)}, then destroy again"
        return ToolFailedError(f"a network of the lab is left on {where(host)}", detail=done.last_words(), hint=hint)
    if done.exit_code == commands.LEFT:
        hint = f"docker rm -f them on {where(host)}, then destroy again"
        return ToolFailedError(
            f"not all of the lab could be removed on {where(host)}", detail=done.last_words(), hint=hint
        )
    return docker_trouble(done, where(host), what)


def _said(done: Completed) -> str:
    return _COLOURS.sub("", (done.stderr or done.stdout).decode(errors="replace"))


def _last_lines(done: Completed) -> str:
    return "\n".join([line.rstrip() for line in _said(done).splitlines() if line.strip()][-12:])


def _deploy_failed(done: Completed, host: str | None) -> StageError:
    """The tool's own last words, with what they mostly mean."""
    words = _last_lines(done)
    if "no space left on device" in words.lower():
        return docker_trouble(Completed(done.exit_code, stderr=words.encode()), where(host), "deploying the lab")
    told = " ".join(words.split())
    hint = next((hint for pattern, hint in _MEANINGS if re.search(pattern, told)), _GOES_ON)
    ended = "took too long" if done.timed_out else f"failed (exit status {done.exit_code})"
    return ToolFailedError(f"containerlab deploy on {where(host)} {ended}", detail=words, hint=hint)
