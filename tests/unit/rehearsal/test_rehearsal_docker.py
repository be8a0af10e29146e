"""Docker hosts among the stand-ins: what may be asked of them, and where their images come from."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.model.error import ToolMissingError, UsageError
from skyspan.rehearsal.services import dockerhost
from skyspan.rehearsal.services.images import Archive, Sources, archives, busybox
from skyspan.rehearsal.services.runner import own_texts, private_folders, programs_of
from skyspan.rehearsal.spec import Docker, Rehearsal, services_of

PATH = "/usr/local/bin:/usr/bin:/bin"


def world(services: dict[str, Any]) -> Rehearsal:
    host = {"site": "lab", "address": "10.98.0.2", "services": services}
    return Rehearsal.model_validate({"sites": {"lab": {"prefix": "10.98.0.0/24"}}, "hosts": {"box": host}})


def docker(**more: Any) -> dict[str, Any]:
    return {"docker": {"kind": "docker", **more}}


def sources(folder: Path, *made: Path, keys: tuple[str, ...] = ()) -> Sources:
    return Sources(folder, made, folder / "scratch", PATH, keys)


def test_references_are_names_with_a_tag_as_docker_has_them() -> None:
    good = ("skyspan/node:1", "busybox", "frrouting/frr:v8.4_1", "127.0.0.1:5000/a/b:x", "a.b/c")
    (service,) = services_of(world(docker(images=dict.fromkeys(good, "node"))).hosts["box"], Docker)
    assert tuple(service.images) == good
    for bad in ("Node:1", "a:b:c", "a b", "-a", "a@sha256:00"):
        with pytest.raises(ValidationError):
            world(docker(images={bad: "node"}))


def test_a_host_has_one_daemon_and_needs_its_programs() -> None:
    assert set(programs_of(world(docker()))) >= {"dockerd", "containerd", "runc", "docker"}
    with pytest.raises(ValidationError, match="one docker is all"):
        world({"one": {"kind": "docker"}, "two": {"kind": "docker"}})


def test_its_settings_are_its_own_and_nothing_of_this_machines_is_seen() -> None:
    host = world(docker(settings={"bip": "10.1.1.1/24", "shutdown-timeout": 9})).hosts["box"]
    settings = json.loads(own_texts(host)["etc/docker/daemon.json"])
    assert (settings["bip"], settings["shutdown-timeout"]) == ("10.1.1.1/24", 9)
    assert "var/lib/docker" in private_folders(host)
    plain = world({}).hosts["box"]
    assert (own_texts(plain), private_folders(plain)) == ({}, ())


def test_a_reference_without_a_tag_is_the_latest() -> None:
    assert dockerhost.full_name("busybox") == "busybox:latest"
    assert dockerhost.full_name("127.0.0.1:5000/a") == "127.0.0.1:5000/a:latest"
    assert dockerhost.full_name("a/b:1") == "a/b:1"


def test_the_image_busybox_is_a_root_file_system_of_one_program() -> None:
    with tarfile.open(fileobj=io.BytesIO(busybox(PATH))) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert members["bin/busybox"].mode == 0o755
    assert members["bin/sh"].linkname == "busybox"
    assert {"etc/passwd", "tmp"} <= set(members)


def test_a_busybox_that_needs_libraries_is_refused(tmp_path: Path) -> None:
    dynamic = shutil.which("ls", path=PATH)
    assert dynamic is not None
    (tmp_path / "busybox").symlink_to(dynamic)
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ToolMissingError, match="static") as refused:
            busybox(str(folder))
        assert "busybox-static" in refused.value.hint


def test_a_node_knows_who_may_log_in_and_comes_from_where_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/node.tar").touch()
    where = sources(tmp_path, tmp_path / "absent", tmp_path / "made", keys=("ssh-ed25519 AAA", "ssh-ed25519 BBB"))
    found = archives(["node"], where)["node"]
    assert found.file == tmp_path / "made/node.tar"
    assert 'ENV AUTHORIZED_KEYS="ssh-ed25519 AAA;ssh-ed25519 BBB"' in found.instructions


def test_a_node_that_was_not_made_is_refused_with_the_way_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match="has not been made") as refused:
        archives(["node"], sources(tmp_path, tmp_path / "images"))
    assert "tools/image" in refused.value.hint
    assert str(tmp_path / "images") in refused.value.detail


def test_a_tar_beside_the_composition_is_told_from_what_docker_saved(tmp_path: Path) -> None:
    for name, member in {"root.tar": "./bin/sh", "saved.tar": "manifest.json"}.items():
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.addfile(tarfile.TarInfo(member))
    found = archives(["root.tar", "saved.tar"], sources(tmp_path))
    assert found["saved.tar"] == Archive(tmp_path / "saved.tar")
    assert found["root.tar"].instructions == ('CMD ["/bin/sh"]',)


def test_a_tar_that_is_not_there_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no image .*absent\.tar"):
        archives(["absent.tar"], sources(tmp_path))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="cannot be read"):
        archives(["text"], sources(tmp_path))
