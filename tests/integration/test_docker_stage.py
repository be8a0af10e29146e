"""A docker stage on a real daemon over TLS: what only a change recreates, what is repaired, refused and left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.dockerhost import ENV, IMAGE, DockerHost, busybox_image
from tests.support.registry import publish, serving

from skyspan.model.change import Action, Change
from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    SpecError,
    StageError,
    ToolFailedError,
    UnreachableError,
)
from skyspan.model.secret import Secret
from skyspan.providers.docker.provider import DockerProvider
from skyspan.providers.docker.spec import DockerSpec
from skyspan.providers.dockerengine.commands import script
from skyspan.testing.conformance.provider import ProviderCase
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

TOKEN = Secret("tok-8d1f55aa")


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerHost]:
    host = DockerHost.start(tls=True)
    yield host
    host.close()


@pytest.fixture
async def world(daemon: DockerHost, tmp_path: Path) -> AsyncIterator[ProviderWorld]:
    transport = LocalTransport(ENV)
    yield ProviderWorld(tmp_path, {None: transport})
    await transport.close()


def settings(daemon: DockerHost) -> dict[str, Any]:
    """Two containers in a network with a bridge of a chosen name; one serves a page, the other fetches it for ever."""
    web = {
        "image": IMAGE,
        "command": ["httpd", "-f", "-p", 80, "-h", "/www"],
        "init": True,
        "ports": ["127.0.0.1:8080:80", "9090:80"],
        "files": {"/www/index.html": {"source": "page.html"}, "/run/token": {"content": TOKEN, "mode": "0600"}},
        "networks": {"inside": {"aliases": ["pages"], "ipv4": "10.61.0.9"}},
        "healthcheck": {"test": "wget -q -O /dev/null http://127.0.0.1/", "interval": 0.3},
    }
    asking = {
        "image": IMAGE,
        "command": ["sh", "-c", "echo asking with $TOKEN; sleep 1000"],
        "env": {"TOKEN": TOKEN},
        "networks": ["inside", "beside"],
        "depends_on": ["web"],
        "sysctls": {"net.ipv4.ip_forward": 1},
        "cap_add": ["NET_ADMIN"],
        "memory": "64m",
        "stop_timeout": 0,
        "mounts": [{"volume": "data", "target": "/data"}, {"tmpfs": "1m", "target": "/scratch"}],
    }
    tls = {"ca": daemon.client["ca"], "certificate": daemon.client["certificate"], "key": Secret(daemon.client["key"])}
    return {
        "engine": {"endpoint": f"tcp://127.0.0.1:{daemon.port}", **tls},
        "containers": {"web": web, "asking": asking},
        "networks": {"inside": {"subnet": "10.61.0.0/24", "bridge": "sk-inside"}, "beside": {"internal": True}},
        "volumes": {"data": {}},
        "pull": "never",
        "ready_within": 30,
    }


def case_of(world: ProviderWorld, daemon: DockerHost, **changes: Any) -> ProviderCase:
    spec = DockerSpec.model_validate({**settings(daemon), **changes})
    return ProviderCase(DockerProvider(), spec, spec, world, daemon.state)


def started(daemon: DockerHost, name: str) -> str:
    return daemon.run("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", f"proof-stage-{name}")


async def refused(case: ProviderCase, kind: type[StageError], *words: str) -> StageError:
    with pytest.raises(kind) as caught:
        await case.provider.apply(case.spec, Change(Action.UPDATE, "tried"), case.world.writing())
    said = "\n".join(caught.value.record().values())
    assert not [word for word in words if word not in said], said
    assert TOKEN.reveal() not in said
    return caught.value


async def test_containers_come_change_and_go_one_by_one_over_tls(world: ProviderWorld, daemon: DockerHost) -> None:
    (world.folder / "page.html").write_text("hello from the lab\n")
    before = daemon.state()
    case = case_of(world, daemon)
    plan = await case.planned()
    assert [(item.address, item.action.value) for item in plan.resources] == [
        ("network inside", "create"), ("network beside", "create"), ("volume data", "create"),
        ("container web", "create"), ("container asking", "create"),
    ]  # fmt: skip
    await case.settle()
    assert not list(world.work.glob("tls-*")), "the key's file went with the command"

    outputs = {name: output.value for name, output in (await case.observe()).outputs.items()}
    assert outputs["endpoints"]["web"] == {"80/tcp": "127.0.0.1:8080"}
    assert outputs["containers"]["web"]["addresses"]["proof-stage-inside"]["ipv4"] == "10.61.0.9"
    assert outputs["containers"]["web"]["health"] == "healthy"
    inside = outputs["networks"]["inside"]
    assert (inside["subnet"], inside["gateway"], inside["bridge"]) == ("10.61.0.0/24", "10.61.0.1", "sk-inside")
    assert "hello from the lab" in daemon.run("exec", "proof-stage-asking", "wget", "-q", "-O", "-", "http://pages/")
    assert daemon.run("exec", "proof-stage-web", "cat", "/run/token") == TOKEN.reveal()
    assert TOKEN.reveal() not in daemon.run("inspect", "proof-stage-web"), "what comes by `files` shows to nobody"
    assert daemon.run("exec", "proof-stage-asking", "cat", "/proc/sys/net/ipv4/ip_forward") == "1"

    # Only what changed is made anew.
    kept = started(daemon, "asking")
    (world.folder / "page.html").write_text("hello again\n")
    plan = await case.planned()
    assert [(item.address, item.action) for item in plan.resources] == [("container web", Action.REPLACE)]
    await case.settle()
    assert started(daemon, "asking") == kept
    assert "hello again" in daemon.run("exec", "proof-stage-asking", "wget", "-q", "-O", "-", "http://web/")

    # One that was killed is named, and brought back without touching the other, into the network that it had left.
    kept = started(daemon, "web")
    daemon.run("kill", "proof-stage-asking")
    daemon.run("network", "disconnect", "proof-stage-beside", "proof-stage-asking")
    seen = await case.observe()
    assert (seen.drifted, seen.healthy, [item.address for item in seen.drift]) == (True, False, ["container asking"])
    await case.settle()
    assert started(daemon, "web") == kept

    # What is stopped stays stopped, and comes back as it was.
    ids = started(daemon, "web").split()[0]
    await case.provider.stop(case.spec, world.writing())  # type: ignore[attr-defined]
    seen = await case.observe()
    assert (seen.exists, seen.healthy, seen.drifted, seen.reason) == (True, False, False, "stopped")
    await case.provider.start(case.spec, world.writing())  # type: ignore[attr-defined]
    await case.settle()
    assert started(daemon, "web").split()[0] == ids

    # A machine that was cut off comes back with nothing running.
    daemon.halt()
    with pytest.raises(UnreachableError, match="no Docker daemon answers"):
        await case.observe()
    daemon.begin()
    assert (await case.observe()).drifted
    await case.settle()

    # Another network: its containers move, the volume's content stays until it is to go.
    daemon.run("exec", "proof-stage-asking", "sh", "-c", "echo kept > /data/file")
    changed = settings(daemon) | {"remove_volumes": True}
    changed["networks"] = {"inside": {"subnet": "10.62.0.0/24", "bridge": "sk-inside"}, "beside": {"internal": True}}
    changed["containers"]["web"]["networks"]["inside"]["ipv4"] = "10.62.0.9"
    moved = case_of(world, daemon, **changed)
    await moved.settle()
    assert daemon.run("exec", "proof-stage-asking", "cat", "/data/file") == "kept"
    await moved.destroy()
    assert daemon.state() == before
    said = world.report.said() + "".join(command.display() for command in world.commands)
    assert TOKEN.reveal() not in said
    assert "PRIVATE KEY" not in said


async def test_what_cannot_be_is_refused_before_anything_is_touched(world: ProviderWorld, daemon: DockerHost) -> None:
    (world.folder / "page.html").write_text("hello\n")
    daemon.run("network", "create", "--subnet", "10.61.0.0/16", "taken")
    daemon.run("run", "-d", "--name", "others", "-p", "9191:80", "--network", "none", IMAGE, "sleep", "1000")
    before = daemon.state()
    plain = {"image": IMAGE, "command": "sleep 1000", "stop_timeout": 0, "network_mode": "none"}
    none: dict[str, Any] = {"networks": {}, "volumes": {}}

    await refused(case_of(world, daemon), SpecError, "10.61.0.0/24", "10.61.0.0/16", "taken")
    named = {"containers": {"web": {**plain, "name": "others"}}, **none}
    await refused(case_of(world, daemon, **named), SpecError, "others", "belongs to somebody else")
    absent = {"containers": {"web": {**plain, "image": "skyspan/absent:1"}}, **none}
    await refused(case_of(world, daemon, **absent), SpecError, "skyspan/absent:1", "pull: never")
    net = {"containers": {"web": plain}, "networks": {"lab": {"external": True}}, "volumes": {}}
    await refused(case_of(world, daemon, **net), NotReadyError, "external network lab")
    bridge = {"containers": {"web": plain}, "networks": {"lab": {"bridge": "docker0"}}, "volumes": {}}
    await refused(case_of(world, daemon, **bridge), SpecError, "docker0")
    assert daemon.state() == before
    assert not world.kept.data, "nothing is remembered of what was refused"

    strange = {"ca": daemon.stranger["ca"], "certificate": daemon.stranger["certificate"]}
    endpoint = {"endpoint": f"tcp://127.0.0.1:{daemon.port}", **strange, "key": Secret(daemon.stranger["key"])}
    await refused(case_of(world, daemon, engine=endpoint), CredentialsError, "certificate")
    wrong = {**settings(daemon)["engine"], "ca": daemon.stranger["certificate"]}
    await refused(case_of(world, daemon, engine=wrong), CredentialsError, "x509")
    socket = {"endpoint": daemon.endpoint}
    as_nobody = world.root / "as-nobody"
    as_nobody.mkdir()
    (as_nobody / "docker").write_text(
        '#!/bin/sh\nPATH=${PATH#*:} exec setpriv --reuid 65534 --clear-groups docker "$@"\n'
    )
    (as_nobody / "docker").chmod(0o755)
    there = world.transports
    world.transports = {None: LocalTransport({**ENV, "PATH": f"{as_nobody}:{ENV['PATH']}"})}
    await refused(case_of(world, daemon, engine=socket), CredentialsError, "may not speak to Docker", "group `docker`")
    await world.transports[None].close()
    world.transports = there
    nobody = {"endpoint": "unix:///run/skyspan-nobody.sock"}
    await refused(case_of(world, daemon, engine=nobody), UnreachableError, "systemctl start docker")

    # What only the daemon can tell: it is typed too, and destroying removes what was begun.
    daemon.run("rm", "-f", "others")
    daemon.run("run", "-d", "--name", "others", "-p", "9191:80", IMAGE, "sleep", "1000")
    before = daemon.state()
    port = {"containers": {"web": {**plain, "network_mode": None, "ports": ["9191:80"]}}, **none}
    await refused(case_of(world, daemon, **port), SpecError, "9191", "a port is taken")
    sick = {**plain, "command": "sh -c 'echo I am $TOKEN; sleep 1000'", "env": {"TOKEN": TOKEN}}
    check = {"test": "echo too sick; false", "interval": 0.2, "retries": 1}
    ill = case_of(world, daemon, containers={"web": {**sick, "healthcheck": check}}, ready_within=1.5, **none)
    await refused(ill, NotReadyError, "within 1.5 s", "too sick", "I am ***")
    gone = case_of(world, daemon, containers={"web": {**sick, "command": "sh -c 'echo bye; exit 7'"}}, **none)
    await refused(gone, NotReadyError, "it ended with status 7", "bye")
    await gone.destroy()
    assert daemon.state() == before


DOCKERFILE = f"""
FROM {IMAGE} AS first
RUN echo $PATH > /made
FROM {IMAGE}
ARG WORD
COPY --from=first /made /made
COPY page.html /www/
ENV WORD=$WORD
"""


async def test_an_image_is_built_from_a_folder_and_goes_with_the_stage(
    world: ProviderWorld, daemon: DockerHost
) -> None:
    context = world.folder / "app"
    context.mkdir()
    for name, text in {
        "Dockerfile": DOCKERFILE,
        "page.html": "one\n",
        ".dockerignore": "*.log\n",
        "a.log": "x",
    }.items():
        (context / name).write_text(text)
    before = daemon.state()
    build = {"context": "app", "args": {"WORD": "hello there"}}
    web = {"build": build, "command": "sleep 1000", "stop_timeout": 0, "network_mode": "none"}
    beside = {**web, "image": IMAGE, "build": None}
    none: dict[str, Any] = {"networks": {}, "volumes": {}}
    case = case_of(world, daemon, containers={"web": web, "beside": beside}, **none)
    plan = await case.planned()
    assert [(item.address, item.note) for item in plan.resources][:1] == [("image web", "built from app")]
    await case.settle()
    shown = daemon.run("exec", "proof-stage-web", "sh", "-c", "cat /made /www/page.html; echo $WORD")
    assert shown.splitlines()[1:] == ["one", "hello there"]
    kept = started(daemon, "beside")

    # What is ignored changes nothing; what is not makes the image anew, and the container that runs it.
    (context / "a.log").write_text("y")
    assert (await case.planned()).action is Action.NONE
    (context / "page.html").write_text("two\n")
    assert [item.address for item in (await case.planned()).resources] == ["image web", "container web"]
    others = daemon.run("images", "--quiet", "localhost/skyspan/proof-stage")
    await case.settle()
    assert daemon.run("exec", "proof-stage-web", "cat", "/www/page.html") == "two"
    assert started(daemon, "beside") == kept
    now = daemon.run("images", "--quiet", "localhost/skyspan/proof-stage")
    assert (len(now.split()), now != others) == (1, True), "the image of before is gone"

    # A build that fails says why, and leaves what runs alone, and nothing behind.
    images = daemon.state()["images"]
    running = started(daemon, "web")
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo one > /one\nRUN echo no luck >&2; exit 7\n")
    await refused(case, ToolFailedError, "building the image of container web", "no luck", "non-zero code: 7")
    (context / "Dockerfile").write_text("FROM nowhere.invalid/x:1\n")
    await refused(case, UnreachableError, "nowhere.invalid")
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY absent /\n")
    await refused(case, SpecError, "absent")
    assert (daemon.state()["images"], started(daemon, "web")) == (images, running)

    # Somebody's image that is made from ours is not ours, though it has its labels.
    daemon.run("build", "-q", "-t", "others:1", "-", given=f"FROM {images_of(daemon)[0]}\nLABEL more=yes\n".encode())
    await case.destroy()
    assert daemon.run("images", "--quiet", "others:1")
    daemon.run("image", "rm", "others:1")
    assert daemon.state() == before


def images_of(daemon: DockerHost) -> list[str]:
    return daemon.run("images", "--format", "{{.Repository}}:{{.Tag}}", "localhost/skyspan/proof-stage").split()


async def test_images_are_fetched_when_they_are_to_be(world: ProviderWorld, daemon: DockerHost, tmp_path: Path) -> None:
    before = daemon.state()
    none: dict[str, Any] = {"networks": {}, "volumes": {}}
    with serving(tmp_path / "registry", daemon.namespace) as registry:
        publish(registry.folder, "lab/node", "1", busybox_image(more={"version": "one"}))
        image = f"{registry.host}/lab/node:1"
        node = {"image": image, "command": "sleep 1000", "stop_timeout": 0, "network_mode": "none"}
        first = case_of(world, daemon, containers={"web": node, "beside": node}, pull="missing", **none)
        await first.settle()
        assert registry.asked == ["lab/node:1"], "each image is asked for once"

        # What is there is not asked for again, whatever the registry has by now; `always` asks.
        publish(registry.folder, "lab/node", "1", busybox_image(more={"version": "two"}))
        changed = {"web": {**node, "env": {"MORE": "yes"}}, "beside": node}
        second = case_of(world, daemon, containers=changed, pull="missing", **none)
        await second.settle()
        assert (daemon.run("exec", "proof-stage-web", "cat", "/version"), len(registry.asked)) == ("one", 1)
        third = case_of(world, daemon, containers={"web": node, "beside": node}, pull="always", **none)
        await third.settle()
        for name in ("web", "beside"):
            assert daemon.run("exec", f"proof-stage-{name}", "cat", "/version") == "two"

        gone = {"web": {**node, "image": f"{registry.host}/lab/node:none"}}
        await refused(case_of(world, daemon, containers=gone, pull="missing", **none), SpecError, "lab/node:none")
    silent = {"web": {**node, "image": image.replace(":1", ":2")}}
    late = case_of(world, daemon, containers=silent, pull="missing", **none)
    await refused(late, UnreachableError, "a registry does not answer", registry.host, "docker load")
    await third.destroy()
    for one in daemon.state()["images"]:
        if one not in before["images"]:
            daemon.run("image", "rm", "-f", one[0])
    assert daemon.state() == before


async def test_a_step_that_is_cancelled_ends_at_once_and_cleans_up(world: ProviderWorld) -> None:
    left = world.root / "left"
    body = f"touch {left}; trap 'rm {left}' EXIT; trap 'exit 143' TERM; cat; sleep 600"
    begun = asyncio.Event()
    step = script((), body, stdin=b"given")
    running = asyncio.ensure_future(world.transports[None].run(step, lambda stream, data: begun.set()))
    await asyncio.wait_for(begun.wait(), 20)
    running.cancel()
    _, late = await asyncio.wait({running}, timeout=10)
    assert not late, "a shell in the foreground would wait for its command, and the ladder for the shell"
    assert not left.exists()
