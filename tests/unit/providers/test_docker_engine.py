"""What Docker says, read: looks, errors and readiness."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.transport import Completed
from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    SpecError,
    StageError,
    ToolFailedError,
    ToolMissingError,
    UnreachableError,
)
from skyspan.model.secret import Secret
from skyspan.providers.dockerengine import facts
from skyspan.providers.dockerengine.commands import NO_DOCKER, Sight, look
from skyspan.providers.dockerengine.engine import Engine, Where
from skyspan.providers.dockerengine.failure import failed, refuse_old
from skyspan.providers.dockerengine.parse import Attachment, Container, Look, Published, parse_look
from skyspan.providers.dockerengine.ready import Verdict, judge, steady, until_ready
from skyspan.providers.dockerengine.spec import EngineSettings
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport, SteppingClock

VERSION = json.dumps({"Client": {"Version": "28.2.2"}, "Server": {"Version": "20.10.24", "ApiVersion": "1.41"}})

STATE = {
    "Status": "running",
    "ExitCode": 0,
    "Error": "",
    "StartedAt": "2026-11-21T22:49:03.94Z",
    "Health": {"Status": "unhealthy", "Log": [{"Output": "first\n"}, {"Output": "cannot reach it\n"}]},
}

CONTAINER = {
    "id": "3bf1",
    "name": "/one-web",
    "state": STATE,
    "image": "x:1",
    "image_id": "sha256:aa",
    "labels": {"skyspan.stage": "default/one/web"},
    "restarts": 2,
    "net": {
        "Networks": {"lab": {"IPAddress": "10.7.0.2", "GlobalIPv6Address": "", "MacAddress": "02:42:0a:07:00:02"}},
        "Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "22/tcp": None,
        },
    },
}

NETWORK = {
    "Id": "355346adc66ca4ec74ad",
    "Name": "lab",
    "Driver": "bridge",
    "Internal": False,
    "IPAM": {"Config": [{"Subnet": "10.7.0.0/24"}, {"Subnet": "fd00:7::/64", "Gateway": "fd00:7::9"}]},
    "Containers": {"3bf1": {"Name": "one-web"}},
    "Options": {},
    "Labels": {},
}

SAID = f"""@version
{VERSION}
@containers
{json.dumps(CONTAINER)}
@networks
{json.dumps(NETWORK)}
@volumes
data default/one/web
others
@images
x:1 sha256:aa
y:1
@routes
default via 10.0.0.1 dev eth0
10.7.0.0/24 dev br-355346adc66c proto kernel scope link src 10.7.0.1
unreachable 10.9.0.0/16 metric 1
@links
br-355346adc66c
lo
"""


def test_a_look_is_read_whole() -> None:
    seen = parse_look(SAID)
    assert (seen.version, seen.api) == ("20.10.24", (1, 41))
    container = seen.containers[0]
    assert (container.name, container.health, container.said) == ("one-web", "unhealthy", "cannot reach it")
    assert container.networks == {"lab": Attachment("10.7.0.2", "", "02:42:0a:07:00:02")}
    assert container.ports == (Published("80/tcp", "0.0.0.0", 8080), Published("80/tcp", "::", 8080))
    network = seen.networks[0]
    assert (network.bridge, network.gateways) == ("br-355346adc66c", ("10.7.0.1", "fd00:7::9"))
    assert seen.volumes == {"data": "default/one/web", "others": ""}
    assert seen.images == {"x:1": "sha256:aa", "y:1": ""}
    assert [str(route) for route in seen.routes] == ["10.7.0.0/24"]
    assert seen.links == {"br-355346adc66c", "lo"}


def test_a_daemon_that_did_not_answer_is_no_look() -> None:
    with pytest.raises(ValueError, match="no server"):
        parse_look('@version\n{"Client": {}, "Server": null}\n')


def test_a_look_is_one_command_that_only_reads() -> None:
    sight = Sight(("one-web",), ("x:1", "x:1"), ("lab",), more=("volumes",))
    command = look(("-H", "unix:///x y.sock"), "skyspan.stage=default/one/web", "default/one/web", sight)
    assert command.effect.value == "read"
    assert "command docker -H 'unix:///x y.sock' \"$@\"" in str(command.argv[2])
    assert command.argv[4:9] == (
        "skyspan.stage=default/one/web",
        "one-web",
        "x:1",
        "lab",
        "containers networks images volumes",
    )


def test_what_was_not_asked_for_is_empty() -> None:
    seen = parse_look("@containers\n@networks\n@images\n")
    assert (seen.containers, seen.networks, seen.version) == ((), (), "")


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            UnreachableError,
            "answers",
        ),
        (
            'permission denied while trying to connect to the Docker daemon socket at unix:///x: Get "http://x": dial',
            CredentialsError,
            "group `docker`",
        ),
        ("error during connect: x509: certificate signed by unknown authority", CredentialsError, "unknown authority"),
        ('error during connect: Get "https://x": remote error: tls: bad certificate', CredentialsError, "bad cert"),
        ("Error response from daemon: client version 1.52 is too new. Maximum", ToolMissingError, "update the older"),
        ("Error response from daemon: No such image: nope/image:1", SpecError, "nope/image:1"),
        ("Error response from daemon: pull access denied for nope, repository does not", SpecError, "nope"),
        ("Error response from daemon: Pool overlaps with other one on this address space", SpecError, "subnet"),
        ("Bind for 0.0.0.0:8080 failed: port is already allocated", SpecError, "0.0.0.0:8080"),
        ("listen tcp4 0.0.0.0:53: bind: address already in use", SpecError, "a port is taken"),
        ('Conflict. The container name "/aa" is already in use by container "3bf"', SpecError, "/aa"),
        (
            'Error response from daemon: Get "https://reg:5000/v2/": dial tcp: connection refused',
            UnreachableError,
            "reg:50",
        ),
        (
            'failed to do request: Head "https://reg/v2/x/manifests/1": x509: unknown',
            UnreachableError,
            "registry does not",
        ),
        ('Get "https://reg/v2/x/manifests/1": no basic auth credentials', CredentialsError, "docker login"),
        ("denied: requested access to the resource is denied", CredentialsError, "docker login"),
        ("exec /x: permission denied: unknown", ToolFailedError, "exit status 1"),
        ("dockerfile parse error line 1: unknown instruction: NONSENSE", SpecError, "NONSENSE"),
        ("COPY failed: file not found in build context: stat absent: file does not exist", SpecError, "absent"),
        ("The command '/bin/sh -c false' returned a non-zero code: 1", ToolFailedError, "exit status 1"),
        ("write /var/lib/docker/x: no space left on device", NotReadyError, "disk is full"),
        ("something that nobody foresaw", ToolFailedError, "exit status 1"),
    ],
)
def test_errors_are_typed_by_what_the_tools_say(said: str, kind: type[StageError], words: str) -> None:
    error = failed("making it", "lab", Completed(1, stderr=said.encode()), said)
    assert type(error) is kind
    assert words in str(error)
    assert said in error.detail
    assert "lab" in error.summary


def test_a_machine_without_docker_and_one_that_hangs_are_told_apart() -> None:
    assert isinstance(failed("x", "lab", Completed(NO_DOCKER), ""), ToolMissingError)
    assert isinstance(failed("x", "lab", Completed(-9, timed_out=True), ""), UnreachableError)


def test_a_daemon_that_is_too_old_is_refused() -> None:
    refuse_old("lab", "19.03", (1, 40))
    with pytest.raises(ToolMissingError, match=r"its API is 1\.39, and 1\.40 is needed"):
        refuse_old("lab", "18.09", (1, 39))


def container(**changes: Any) -> Container:
    return replace(Container("id", "web", "running", started_at="t1"), **changes)


@pytest.mark.parametrize(
    ("there", "ends", "verdict", "reason"),
    [
        (container(), False, Verdict.READY, ""),
        (container(health="healthy"), False, Verdict.READY, ""),
        (container(health="starting"), False, Verdict.WAITING, "says starting"),
        (container(health="unhealthy", said="no route"), False, Verdict.WAITING, "says unhealthy: no route"),
        (container(state="restarting", exit_code=3, restarts=4), False, Verdict.WAITING, "again and again (4 times)"),
        (container(state="exited", exit_code=137), False, Verdict.FAILED, "status 137"),
        (container(state="exited"), False, Verdict.FAILED, "status 0"),
        (container(state="exited"), True, Verdict.READY, ""),
        (container(state="exited", exit_code=1), True, Verdict.FAILED, "status 1"),
        (container(), True, Verdict.WAITING, "has not done its work"),
        (container(state="paused"), False, Verdict.FAILED, "it is paused"),
        (container(state="created", error="port taken"), False, Verdict.FAILED, "port taken"),
        (None, False, Verdict.FAILED, "not there"),
    ],
)
def test_a_container_is_judged_by_what_it_is_for(
    there: Container | None, ends: bool, verdict: Verdict, reason: str
) -> None:
    found = judge(there, ends=ends)
    assert found.verdict is verdict
    assert reason in found.reason


def test_a_container_without_a_check_is_up_when_it_stayed_up_between_two_looks() -> None:
    def seen(*containers: Container) -> Look:
        return Look("20", (1, 41), containers)

    assert steady(seen(container()), seen(container()), {"web": False})
    assert not steady(None, seen(container()), {"web": False})
    assert not steady(seen(container()), seen(container(started_at="t2", restarts=1)), {"web": False})
    assert steady(None, seen(container(health="healthy")), {"web": False}), "a health check tells more than two looks"
    assert steady(None, seen(container(state="exited")), {"web": True})


WAITS = [
    # What each look finds, whether it ends, and which looks saw everything.
    ([container(), container()], False, [False, True]),
    ([container(health="starting"), container(health="starting"), container(health="healthy")], False, [False] * 3),
    ([container(), container(started_at="t2"), container(started_at="t2")], False, [False, True, True]),
    ([container(), container(state="exited")], True, [True, False]),
    ([container(state="exited")], True, [True]),
]


@pytest.mark.parametrize(("found", "ends", "asked"), WAITS)
async def test_a_wait_looks_at_containers_alone_until_it_may_be_over(
    tmp_path: Path, found: list[Container], ends: bool, asked: list[bool]
) -> None:
    clock = SteppingClock()
    ctx = ProviderWorld(tmp_path, {None: ScriptedTransport()}, clock=clock).writing()
    looks: list[bool] = []

    async def glance(everything: bool) -> Look:
        looks.append(everything)
        return Look("", (0, 0), (found[min(len(looks), len(found)) - 1],))

    engine = Engine(Where(), (), ctx, frozenset())
    seen = await until_ready(engine, {"web": ends}, 20, glance, ctx)
    # What is returned saw everything, be it one look more than it took to become ready.
    assert (looks[: len(asked)], looks[-1], len(looks) - len(asked) <= 1) == (asked, True, True)
    assert seen.containers == (found[-1],)
    assert len(clock.slept) == len(found) - 1, "a look more than needed is made without a pause"


def test_a_published_port_is_where_it_can_be_reached() -> None:
    ports = (
        Published("80/tcp", "::", 8080),
        Published("80/tcp", "0.0.0.0", 8080),
        Published("22/tcp", "192.0.2.7", 2222),
        Published("53/udp", "::", 53),
    )
    found = facts.endpoints(container(ports=ports), "lab.example")
    assert found == {"80/tcp": "lab.example:8080", "22/tcp": "192.0.2.7:2222", "53/udp": "lab.example:53"}
    assert facts.endpoints(container(ports=ports[:1]), "2001:db8::1") == {"80/tcp": "[2001:db8::1]:8080"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoint": "http://x"}, "is no endpoint"),
        ({"endpoint": "unix:///x", "ca": "PEM"}, "speaks no TLS"),
        ({"endpoint": "tcp://x:1", "ca": "PEM", "certificate": "PEM"}, "belong together"),
        ({"endpoint": "tcp://x:1", "certificate": "PEM", "key": Secret("k")}, "without `ca`"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EngineSettings.model_validate(settings)


def test_a_daemon_is_the_same_whatever_its_certificates() -> None:
    one = Where(None, EngineSettings(endpoint="tcp://[2001:db8::1]:2376", ca="one"))
    assert one.mark == Where(None, EngineSettings(endpoint="tcp://[2001:db8::1]:2376", ca="two")).mark
    assert one.mark != Where("lab").mark
    assert one.settings is not None
    assert one.settings.address == "2001:db8::1"
