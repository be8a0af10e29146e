"""The docker provider's pure parts: settings, what they ask for, and what differs."""

from __future__ import annotations

import base64
import io
import tarfile
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, SpecError
from skyspan.model.secret import Secret
from skyspan.providers.docker.building import wanted_images
from skyspan.providers.docker.commands import build, make_container, mend_container
from skyspan.providers.docker.compare import differences, refuse_collisions
from skyspan.providers.docker.spec import DockerSpec
from skyspan.providers.docker.wanted import Wanted, wanted
from skyspan.providers.dockerengine.parse import DIGEST, KEY, OWNER, Attachment, Container, Look, Network
from skyspan.providers.dockerengine.refusing import refuse_missing_images
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport

OURS = "default/proof/stage"


def spec(web: dict[str, Any] | None = None, **settings: Any) -> DockerSpec:
    return DockerSpec.model_validate({"containers": {"web": {"image": "x:1", **(web or {})}}, **settings})


def asked(tmp_path: Path, web: dict[str, Any] | None = None, **settings: Any) -> Wanted:
    ctx = ProviderWorld(tmp_path, {None: ScriptedTransport()}).reading()
    asking = spec(web, **settings)
    return wanted(asking, ctx, {"page": b"hello"}, wanted_images(asking, ctx, b"key"), b"key")


def there(one: Wanted, **changes: Any) -> Look:
    """A look that finds everything as it is to be, but for `changes` of every container."""
    containers = tuple(
        replace(
            Container(
                f"id-{item.name}", item.name, "running", item.image, "sha256:1",
                labels={OWNER: one.owner, KEY: item.key, DIGEST: item.digest},
                networks={name: Attachment() for name in item.networks},
            ),
            **changes,
        )
        for item in one.containers.values()
    )  # fmt: skip
    networks = tuple(
        Network(
            f"id-{net.name}",
            net.name,
            labels={} if net.external else {OWNER: one.owner, KEY: net.key, DIGEST: net.digest},
        )
        for net in one.networks
    )
    return Look(
        "20", (1, 41), containers, networks, dict.fromkeys(one.volumes.values(), one.owner), {"x:1": "sha256:1"}
    )


def found(one: Wanted, seen: Look) -> list[tuple[str, Action]]:
    return [(item.resource.address, item.action) for item in differences(one, seen)]


@pytest.mark.parametrize(
    ("web", "settings", "words"),
    [
        ({"networks": ["lab"]}, {}, "no network lab"),
        ({"depends_on": ["db"]}, {}, "depends on db"),
        ({"depends_on": ["web"]}, {}, "in a circle"),
        ({"env": {"A B": "x"}}, {}, "cannot be an environment variable"),
        ({"env": {"KEY": Secret("one\ntwo")}}, {}, "several lines"),
        ({"ports": ["80:x"]}, {}, "is no port"),
        ({"files": {"etc/x": {"content": "x"}}}, {}, "absolute paths"),
        ({"files": {"/etc/x": {}}}, {}, "of `content` or of `source`"),
        ({"mounts": [{"target": "/x"}]}, {}, "one of `bind`"),
        ({"restart": "sometimes"}, {}, "restart policy"),
        ({"oneshot": True, "restart": "always"}, {}, "not restarted"),
        ({"network_mode": "host", "networks": ["lab"]}, {"networks": {"lab": None}}, "instead of"),
        ({"networks": {"lab": {"ipv4": "10.9.0.4"}}}, {"networks": {"lab": {"subnet": "10.8.0.0/24"}}}, "10.9.0.4"),
        ({}, {"networks": {"lab": {"bridge": "a-name-of-too-many-letters"}}}, "15 characters"),
        ({}, {"networks": {"lab": {"external": True, "subnet": "10.8.0.0/24"}}}, "no settings but"),
        ({}, {"networks": {"lab": {"subnet": "10.8.0.0/24", "gateway": "10.9.0.1"}}}, "not in the network"),
        ({}, {"host": "lab", "engine": {"endpoint": "tcp://192.0.2.7:2376"}}, "two places"),
        ({"image": "-rm"}, {}, "pattern"),
        ({"build": "app"}, {}, "an `image` or what is made by `build`"),
        ({"image": None}, {}, "an `image` or what is made by `build`"),
        ({"image": None, "build": "../app"}, {}, "not in the composition"),
        ({"image": None, "build": {"dockerfile": "/etc/x"}}, {}, "not in the context"),
        ({"image": None, "build": {"args": {"A B": "x"}}}, {}, "argument of a build"),
        ({"image": None, "build": {"args": {"KEY": Secret("hidden")}}}, {}, "a secret cannot be one"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(
    web: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        spec(web, **settings)
    assert "one\ntwo" not in str(caught.value)


def test_containers_start_behind_those_they_depend_on() -> None:
    chain = {"a": {"image": "x", "depends_on": ["b"]}, "b": {"image": "x"}, "c": {"image": "x", "depends_on": ["a"]}}
    assert DockerSpec.model_validate({"containers": chain}).levels() == (("b",), ("a",), ("c",))


def test_a_container_becomes_the_words_of_docker_create(tmp_path: Path) -> None:
    one = asked(
        tmp_path,
        {
            "command": "serve --port 80",
            "ports": [80, "127.0.0.1:8080:80"],
            "networks": {"lab": {"aliases": ["www"], "ipv4": "10.8.0.9"}, "far": None},
            "cap_add": ["NET_ADMIN"],
            "devices": ["/dev/net/tun"],
            "sysctls": {"net.ipv4.ip_forward": 1},
            "mounts": [{"volume": "data", "target": "/data", "read_only": True}, {"tmpfs": "1m", "target": "/t"}],
            "healthcheck": {"test": ["wget", "http://a b"], "interval": "500ms"},
            "cpus": 0.5,
        },
        networks={"lab": {"subnet": "10.8.0.0/24"}, "far": {"external": True, "name": "clab-mgmt"}},
        volumes={"data": None},
    ).containers["web"]
    words = " ".join(one.argv)
    assert one.argv[-4:] == ("x:1", "serve", "--port", "80")
    for part in (
        "--publish 80 --publish 127.0.0.1:8080:80",
        "--network proof-stage-lab --network-alias web --network-alias www --ip 10.8.0.9",
        "--mount type=volume,source=proof-stage-data,target=/data,readonly",
        "--mount type=tmpfs,target=/t,tmpfs-size=1m",
        "--health-cmd wget 'http://a b'",
        "--health-interval 500ms",
        "--sysctl net.ipv4.ip_forward=1",
        "--cpus 0.5",
    ):
        assert part in words
    assert one.joins == (("--alias", "web", "clab-mgmt"),)
    assert one.first_join == ("--alias", "web", "--alias", "www", "--ip", "10.8.0.9")


def test_environment_and_files_go_by_standard_input_alone(tmp_path: Path) -> None:
    token = Secret("s3cr3t")
    files = {"/etc/a/b": {"content": token, "mode": "0600", "uid": 7}, "/page": {"source": "page"}}
    one = asked(tmp_path, {"env": {"TOKEN": token, "N": 1}, "files": files}).containers["web"]
    command = make_container((), one)
    assert "s3cr3t" not in repr(command)
    env, _, archive = one.given.reveal().partition("\n")
    assert base64.b64decode(env).decode() == "TOKEN=s3cr3t\nN=1\n"
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive))) as packed:
        assert [(item.name, item.mode, item.uid) for item in packed] == [("etc/a/b", 0o600, 7), ("page", 0o644, 0)]


def test_a_digest_changes_with_the_settings_a_file_or_a_network_and_never_shows_what_it_is_of(tmp_path: Path) -> None:
    net = {"networks": {"lab": {"subnet": "10.8.0.0/24"}}}
    plain = asked(tmp_path, {"networks": ["lab"]}, **net).containers["web"].digest
    assert asked(tmp_path, {"networks": ["lab"]}, **net).containers["web"].digest == plain
    others = [
        asked(tmp_path, {"networks": ["lab"], "env": {"A": "1"}}, **net),
        asked(tmp_path, {"networks": ["lab"], "files": {"/x": {"content": "1"}}}, **net),
        asked(tmp_path, {"networks": ["lab"]}, networks={"lab": {"subnet": "10.8.1.0/24"}}),
    ]
    assert len({plain, *(one.containers["web"].digest for one in others)}) == 4
    ctx = ProviderWorld(tmp_path, {}).reading()
    assert wanted(spec({"networks": ["lab"]}, **net), ctx, {}, {}, b"other").containers["web"].digest != plain


def test_a_path_of_the_composition_is_not_looked_for_on_a_host(tmp_path: Path) -> None:
    mount = {"mounts": [{"bind": "./conf", "target": "/conf"}]}
    assert f"source={tmp_path}/composition/conf," in " ".join(asked(tmp_path, mount).containers["web"].argv)
    with pytest.raises(SpecError, match="not on the Docker host"):
        asked(tmp_path, mount, host="lab")


def test_what_is_as_it_is_to_be_is_left_alone(tmp_path: Path) -> None:
    one = asked(tmp_path, {"networks": ["lab"]}, networks={"lab": None}, volumes={"data": None})
    assert found(one, there(one)) == []


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"state": "exited", "exit_code": 1}, Action.UPDATE),
        ({"state": "paused"}, Action.UPDATE),
        ({"state": "restarting"}, Action.UPDATE),
        ({"health": "unhealthy"}, Action.UPDATE),
        ({"networks": {}}, Action.UPDATE),
        ({"state": "created"}, Action.REPLACE),
        ({"image_id": "sha256:2"}, Action.REPLACE),
        ({"labels": {OWNER: OURS}}, Action.REPLACE),
    ],
)
def test_what_is_wrong_with_a_container_says_what_is_done_to_it(
    tmp_path: Path, changes: dict[str, Any], action: Action
) -> None:
    one = asked(tmp_path, {"networks": ["lab"]}, networks={"lab": None})
    assert found(one, there(one, **changes)) == [("container web", action)]


def test_a_container_whose_check_has_not_passed_yet_is_waited_for(tmp_path: Path) -> None:
    one = asked(tmp_path)
    assert found(one, there(one, health="starting")) == []


def test_a_network_that_changes_takes_its_containers_along(tmp_path: Path) -> None:
    before = asked(tmp_path, {"networks": ["lab"]}, networks={"lab": {"subnet": "10.8.0.0/24"}})
    after = asked(tmp_path, {"networks": ["lab"]}, networks={"lab": {"subnet": "10.9.0.0/24"}})
    assert found(after, there(before)) == [("network lab", Action.REPLACE), ("container web", Action.REPLACE)]


def test_what_is_no_longer_asked_for_goes_and_its_data_only_by_wish(tmp_path: Path) -> None:
    before = asked(tmp_path, networks={"lab": None}, volumes={"data": None})
    other = {"containers": {"db": {"image": "x:1"}}}
    ctx = ProviderWorld(tmp_path, {}).reading()
    for wish, more in ((False, []), (True, [("volume proof-stage-data", Action.DESTROY)])):
        after = wanted(DockerSpec.model_validate({**other, "remove_volumes": wish}), ctx, {}, {}, b"key")
        assert found(after, there(before)) == [
            ("network lab", Action.DESTROY),
            *more,
            ("container db", Action.CREATE),
            ("container web", Action.DESTROY),
        ]


def test_a_container_is_brought_back_as_its_state_needs(tmp_path: Path) -> None:
    for state, word in (("exited", "d start"), ("paused", "d unpause"), ("running", "d restart")):
        assert word in str(mend_container((), "web", state, ()).argv[2])
    joined = str(mend_container((), "web", "running", (("--alias", "web", "lab"),)).argv[2])
    assert "d network connect --alias web lab web" in joined
    assert "restart" not in joined


def test_others_things_are_never_touched(tmp_path: Path) -> None:
    one = asked(tmp_path, networks={"lab": {"subnet": "10.8.0.0/24"}}, volumes={"data": None})
    theirs = there(one, labels={OWNER: "default/other/stage"})
    with pytest.raises(SpecError, match="belongs to stage default/other/stage"):
        refuse_collisions(one, theirs, "lab")
    nothing = Look("20", (1, 41))
    refuse_collisions(one, nothing, "lab")
    network = Network("id", "proof-stage-lab")
    with pytest.raises(SpecError, match="network called proof-stage-lab"):
        refuse_collisions(one, replace(nothing, networks=(network,)), "lab")
    with pytest.raises(SpecError, match=r"overlaps 10\.8\.0\.0/16 of the network wide"):
        wide = Network("id", "wide", subnets=("10.8.0.0/16",))
        refuse_collisions(one, replace(nothing, networks=(wide,)), "lab")
    with pytest.raises(SpecError, match=r"has a route to 10\.8\.0\.128/25"):
        refuse_collisions(one, replace(nothing, routes=(ip_network("10.8.0.128/25"),)), "lab")
    refuse_collisions(one, replace(nothing, routes=(ip_network("10.0.0.0/8"),)), "lab")
    with pytest.raises(SpecError, match="volume called proof-stage-data"):
        refuse_collisions(one, replace(nothing, volumes={"proof-stage-data": ""}), "lab")


def test_what_has_to_be_there_already_is_asked_for(tmp_path: Path) -> None:
    one = asked(tmp_path, networks={"lab": {"external": True}})
    with pytest.raises(NotReadyError, match="external network lab"):
        refuse_collisions(one, Look("20", (1, 41)), "here")
    with pytest.raises(SpecError, match="x:1"):
        refuse_missing_images(one.images, Look("20", (1, 41), images={"x:1": ""}), "here")


def context(tmp_path: Path, **more: str) -> Path:
    """A composition with the context `app`."""
    folder = tmp_path / "composition/app"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "Dockerfile": "FROM scratch\nCOPY . /\n",
        ".dockerignore": "*.log\n",
        "page": "x",
        **more,
    }.items():
        (folder / name).write_text(text)
    return folder


BUILT = {"image": None, "build": {"context": "app", "args": {"PORT": 80, "QUICK": True}, "target": "last"}}


def test_an_image_is_built_from_its_context_and_called_by_what_is_in_it(tmp_path: Path) -> None:
    folder = context(tmp_path, **{"a.log": "x"})
    first = asked(tmp_path, BUILT)
    image = first.built[first.containers["web"].image]
    assert image.name.startswith("localhost/skyspan/proof-stage:")
    assert (image.names, first.others_images) == ((".dockerignore", "Dockerfile", "page"), ())
    command = build(("-H", "x"), first.owner, image, context=image.packed(), fresh=True)
    words = command.argv[2]
    assert isinstance(words, str)
    assert "--build-arg=PORT=80 --build-arg=QUICK=true --target last --pull -f" in words
    assert f"-t {image.name} --label skyspan.image={OURS}" in words
    assert isinstance(command.stdin, bytes)
    with tarfile.open(fileobj=io.BytesIO(command.stdin)) as archive:
        assert archive.getnames() == [".dockerignore", "Dockerfile", "page"]
    here = build((), first.owner, image)
    assert (here.stdin, str(folder) in str(here.argv[2]), "--pull" in str(here.argv[2])) == (b"", True, False)

    (folder / "a.log").write_text("what is ignored changes nothing")
    assert asked(tmp_path, BUILT).images == first.images
    (folder / "page").write_text("y")
    assert asked(tmp_path, BUILT).images != first.images
    assert asked(tmp_path, {**BUILT, "build": {"context": "app", "args": {"PORT": 81}}}).images != first.images


def test_a_build_that_is_asked_for_shows_in_a_plan_until_its_image_is_there(tmp_path: Path) -> None:
    context(tmp_path)
    one = asked(tmp_path, BUILT, containers={"web": BUILT, "twin": BUILT})
    (name,) = one.built
    assert found(one, replace(there(one), images={name: ""})) == [("image web", Action.CREATE)]
    assert found(one, replace(there(one), images={name: "sha256:1"})) == []


def test_a_context_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no folder 'app'"):
        asked(tmp_path, BUILT)
    folder = context(tmp_path, **{".dockerignore": "[\n"})
    with pytest.raises(SpecError, match=r"dockerignore .* cannot be read: '\['"):
        asked(tmp_path, BUILT)
    (folder / "Dockerfile").unlink()
    with pytest.raises(SpecError, match="no Dockerfile 'Dockerfile' in 'app'"):
        asked(tmp_path, BUILT)
