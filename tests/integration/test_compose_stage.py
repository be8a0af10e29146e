"""A compose stage on a host over SSH: files go with it, only what changed is made anew, trouble is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.dockerhost import ENV, IMAGE, DockerHost
from tests.support.sshd import USER, Sshd

from skyspan.contracts.host import Host
from skyspan.model.change import Action, Change
from skyspan.model.error import NotReadyError, SpecError, StageError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.compose.provider import ComposeProvider
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.docker.provider import DockerProvider
from skyspan.providers.docker.spec import DockerSpec
from skyspan.testing.conformance.provider import ProviderCase
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh import SshTransport
from skyspan.transports.ssh_connect import SshSettings

pytestmark = pytest.mark.integration

TOKEN = Secret("tok-77 '\"$x\nsecond line")

FILES = {
    "site/compose.yml": f"""
services:
  web:
    image: {IMAGE}
    command: httpd -f -p 80 -h /www
    init: true
    ports: ["127.0.0.1:8080:80"]
    volumes: ["./www:/www:ro"]
    env_file: [./web.env]
    depends_on: {{prepare: {{condition: service_completed_successfully}}}}
    healthcheck: {{test: "wget -q -O /dev/null http://127.0.0.1/", interval: 300ms}}
  asking:
    image: {IMAGE}
    command: sleep 1000
    init: true
    stop_grace_period: 0s
    secrets: [token]
    volumes: ["data:/data"]
  prepare:
    build: {{context: ., args: {{WORD: lab}}}}
    command: "cat /context/prepared"
    network_mode: none
  idle:
    image: {IMAGE}
    profiles: [never]
networks:
  default: {{ipam: {{config: [{{subnet: 10.71.0.0/24}}]}}}}
volumes:
  data: {{}}
secrets:
  token: {{environment: TOKEN}}
""",
    "site/Dockerfile": f"FROM {IMAGE} AS first\nRUN echo one > /one\nFROM {IMAGE}\nARG WORD\nENV WORD=$WORD\n"
    "COPY --from=first /one /one\nCOPY . /context/\n",
    "site/.dockerignore": "www\n",
    "site/prepared": "once\n",
    "site/web.env": "KIND=lab\n",
    "site/www/index.html": "hello\n",
    "elsewhere.txt": "not of the project\n",
}


@pytest.fixture
async def world(daemon: DockerHost, tmp_path: Path) -> AsyncIterator[ProviderWorld]:
    daemon.clear()
    sshd = Sshd(tmp_path / "sshd", extra=f'SetEnv "PATH={ENV["PATH"]}"\n')
    key = Secret((sshd.folder / "user_key").read_text())
    host = Host("lab", "127.0.0.1", port=sshd.port, user=USER, key=key, host_key=sshd.host_key)
    here, there = LocalTransport(ENV), SshTransport(host, SshSettings(connect_timeout_s=10))
    made = ProviderWorld(tmp_path, {None: here, "lab": there}, hosts={"lab": host})
    for name, text in FILES.items():
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).write_text(text)
    yield made
    await there.close()
    await here.close()
    sshd.stop()


def case_of(world: ProviderWorld, daemon: DockerHost, **changes: Any) -> ProviderCase:
    settings = {
        "host": "lab",
        "engine": {"endpoint": daemon.endpoint},
        "files": ["site/compose.yml"],
        "project": "sk-test-site",
        "variables": {"TOKEN": TOKEN},
        "pull": "never",
        "ready_within": 30,
    }
    spec = ComposeSpec.model_validate({name: one for name, one in {**settings, **changes}.items() if one is not None})
    return ProviderCase(ComposeProvider(), spec, spec, world, daemon.state)


def started(daemon: DockerHost, service: str) -> str:
    return daemon.run("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", f"sk-test-site-{service}-1")


def resources(change: Any) -> list[tuple[str, Action]]:
    return [(item.address, item.action) for item in change.resources]


async def refused(case: ProviderCase, kind: type[StageError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        await case.provider.apply(case.spec, Change(Action.UPDATE, "tried"), case.world.writing())
    said = "\n".join(caught.value.record().values())
    assert not [word for word in words if word not in said], said
    assert "tok-77" not in said


async def test_a_project_goes_to_a_host_with_its_files(world: ProviderWorld, daemon: DockerHost) -> None:
    store = Path("/var/lib/skyspan/compose/sk-test-site")
    assert not store.exists()
    before = daemon.state()
    case = case_of(world, daemon)
    plan = await case.planned()
    assert resources(plan) == [
        ("network default", Action.CREATE), ("volume data", Action.CREATE), ("service asking", Action.CREATE),
        ("service prepare", Action.CREATE), ("service web", Action.CREATE),
    ]  # fmt: skip
    assert not store.exists(), "a plan leaves nothing on the host"
    await case.settle()
    outputs = {name: output.value for name, output in (await case.observe()).outputs.items()}
    assert outputs["endpoints"]["web"] == {"80/tcp": "127.0.0.1:8080"}
    assert outputs["networks"]["default"]["subnet"] == "10.71.0.0/24"
    assert [one["health"] for one in outputs["services"]["web"]] == ["healthy"]
    assert daemon.run("exec", "sk-test-site-asking-1", "wget", "-q", "-O", "-", "http://web/") == "hello"
    assert daemon.run("exec", "sk-test-site-asking-1", "cat", "/run/secrets/token") == TOKEN.reveal()
    assert daemon.run("exec", "sk-test-site-web-1", "sh", "-c", "echo $KIND") == "lab"
    assert not (store / "elsewhere.txt").exists(), "only what the project names goes with it"
    inside = daemon.run("run", "--rm", "--network", "none", "sk-test-site-prepare", "ls", "-A", "/context").split()
    assert sorted(inside) == [".dockerignore", "Dockerfile", "compose.yml", "prepared", "web.env"], "nothing of ours"

    # A file that one service mounts: that service, and no other, is made anew.
    kept = started(daemon, "asking")
    (world.folder / "site/www/index.html").write_text("hello again\n")
    assert (await case.observe()).drifted
    assert resources(await case.planned()) == [("service web", Action.REPLACE)]
    await case.settle()
    assert started(daemon, "asking") == kept
    assert daemon.run("exec", "sk-test-site-asking-1", "wget", "-q", "-O", "-", "http://web/") == "hello again"

    # A file that an image is built from: the image is built anew, and the one of before goes.
    kept, images = started(daemon, "web"), daemon.state()["images"]
    (world.folder / "site/prepared").write_text("twice\n")
    assert resources(await case.planned()) == [("service prepare", Action.REPLACE)]
    await case.settle()
    assert (daemon.run("logs", "sk-test-site-prepare-1"), started(daemon, "web")) == ("twice", kept)
    assert (len(daemon.state()["images"]), daemon.state()["images"] != images) == (len(images), True)

    # One that was killed is named, and brought back without touching the others; one that was removed, too.
    kept = started(daemon, "web")
    daemon.run("kill", "sk-test-site-asking-1")
    seen = await case.observe()
    assert (seen.drifted, seen.healthy, [item.address for item in seen.drift]) == (True, False, ["service asking"])
    await case.settle()
    assert started(daemon, "web") == kept

    await case.provider.stop(case.spec, world.writing())  # type: ignore[attr-defined]
    assert (await case.observe()).reason == "stopped"
    await case.provider.start(case.spec, world.writing())  # type: ignore[attr-defined]
    await case.settle()

    # More of one, and none of a service that went from the files; the volume's content stays until it is to go.
    daemon.run("exec", "sk-test-site-asking-1", "sh", "-c", "echo kept > /data/file")
    larger = case_of(world, daemon, scale={"asking": 2}, services=["asking"], remove_volumes=True)
    await larger.settle()
    assert daemon.run("exec", "sk-test-site-asking-2", "cat", "/data/file") == "kept"
    await larger.destroy()
    assert daemon.state() == before
    assert not store.exists()
    assert "tok-77" not in world.report.said() + "".join(command.display() for command in world.commands)


async def test_an_image_is_built_on_a_host_from_a_folder_that_goes_there(
    world: ProviderWorld, daemon: DockerHost
) -> None:
    before = daemon.state()
    web = {
        "build": {"context": "site", "args": {"WORD": "there"}},
        "command": ["sh", "-c", "ls -A /context; echo $WORD"],
        "oneshot": True,
        "network_mode": "none",
    }
    engine = {"endpoint": daemon.endpoint}
    spec = DockerSpec.model_validate({"host": "lab", "engine": engine, "containers": {"web": web}, "pull": "never"})
    case = ProviderCase(DockerProvider(), spec, spec, world, daemon.state)
    await case.settle()
    said = daemon.run("logs", "proof-stage-web").split()
    assert said == [".dockerignore", "Dockerfile", "compose.yml", "prepared", "web.env", "there"]
    await case.destroy()
    assert daemon.state() == before


async def test_trouble_with_a_project_is_named(world: ProviderWorld, daemon: DockerHost) -> None:
    before = daemon.state()
    daemon.run("network", "create", "--subnet", "10.71.0.0/16", "taken")
    await refused(case_of(world, daemon), SpecError, "the subnet is taken")
    await case_of(world, daemon).destroy()
    daemon.run("network", "rm", "taken")
    assert daemon.state() == before

    plain = {"image": IMAGE, "command": "sleep 1000", "stop_grace_period": "0s", "network_mode": "none"}

    def inline(**service: Any) -> ProviderCase:
        return case_of(world, daemon, files=None, host=None, inline={"services": {"web": {**plain, **service}}})

    await refused(inline(nonsense=1), SpecError, "Compose refuses the files", "nonsense")
    await refused(inline(image="skyspan/absent:1"), SpecError, "skyspan/absent:1", "pull: never")
    await refused(case_of(world, daemon, files=["none.yml"]), SpecError, "none.yml")
    broken = inline(command="sh -c 'echo I hold $$TOKEN; exit 5'", environment={"TOKEN": "${TOKEN}"})
    await refused(broken, NotReadyError, "sk-test-site-web-1", "status 5", "I hold ***")
    sick = inline(healthcheck={"test": "echo too sick; false", "interval": "200ms", "retries": 1})
    await refused(replace(sick, spec=sick.spec.model_copy(update={"ready_within": 2.0})), NotReadyError, "too sick")
    await sick.destroy()
    assert daemon.state() == before

    # A project of the same name that somebody else brought up is left alone.
    label = "com.docker.compose.project=sk-test-site"
    daemon.run("run", "-d", "--name", "others", "--network", "none", "--label", label, IMAGE, "sleep", "1000")
    before = daemon.state()
    await refused(inline(), SpecError, "belongs to somebody else")
    await inline().destroy()
    assert daemon.state() == before

    # Compose 1 and no Compose at all.
    tools = world.root / "tools"
    tools.mkdir()
    world.transports = {None: LocalTransport({**ENV, "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"})}
    await refused(inline(), ToolMissingError, "no Docker Compose")
    (tools / "docker-compose").write_text("#!/bin/sh\necho 1.29.2\n")
    (tools / "docker-compose").chmod(0o755)
    await refused(inline(), ToolMissingError, "1.29.2", "version 2 is needed")
    await world.transports[None].close()
    daemon.run("rm", "-f", "others")
