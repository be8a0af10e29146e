"""The compose provider's pure parts: which files a project names, what Compose makes of them, what differs."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, SpecError
from skyspan.model.secret import Secret
from skyspan.providers.compose import commands
from skyspan.providers.compose.bundle import bundle
from skyspan.providers.compose.compare import differences, refuse_missing, refuse_others
from skyspan.providers.compose.project import Project, parse_project
from skyspan.providers.compose.references import Reference, references
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.dockerengine.parse import DIGEST, OWNER, Container, Look, Network

OURS = "default/proof/stage"

MODEL: dict[str, Any] = {
    "name": "site",
    "services": {
        "web": {
            "image": "x:1",
            "networks": {"default": None},
            "volumes": [{"type": "bind", "source": "/t/1/www", "target": "/www"}],
            "depends_on": {"once": {"condition": "service_completed_successfully"}},
        },
        "once": {"image": "x:1", "networks": {"default": None}},
        "many": {"image": "y:1", "deploy": {"replicas": 3}, "secrets": [{"source": "token"}]},
    },
    "networks": {"default": {"name": "site_default"}, "lab": {"name": "clab", "external": True}},
    "volumes": {"data": {"name": "site_data"}},
    "secrets": {"token": {"name": "site_token", "file": "/t/1/token"}},
}


def spec(**settings: Any) -> ComposeSpec:
    return ComposeSpec.model_validate(settings)


def project(model: dict[str, Any] | None = None, root: str = "/t/1", told: str = "same", **settings: Any) -> Project:
    return parse_project(json.dumps(model or MODEL), root, spec(**settings), lambda path: f"{told} {path}", b"key")


def there(one: Project, **changes: Any) -> Look:
    containers = tuple(
        replace(
            Container(
                f"{name}{number}", f"site-{name}-{number + 1}", "exited" if service.ends else "running",
                service.image, "sha256:1",
                labels={
                    OWNER: OURS, DIGEST: service.digest,
                    "com.docker.compose.project": "site", "com.docker.compose.service": name,
                },
            ),
            **changes.get(name, {}),
        )
        for name, service in one.services.items()
        for number in range(service.replicas)
    )  # fmt: skip
    images = dict.fromkeys(one.images, "sha256:1")
    networks = (Network("n", "site_default", labels={OWNER: OURS}),)
    return Look("20", (1, 41), containers, networks, {"site_data": OURS}, images)


def found(one: Project, seen: Look) -> list[tuple[str, Action]]:
    return [(item.address, item.action) for item in differences(one, seen)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"files": ["a.yml"], "inline": {}}, "of `files` or of `inline`"),
        ({"files": ["/etc/a.yml"]}, "not in the composition"),
        ({"ship": ["../x"]}, "not in the composition"),
        ({"variables": {"PATH": "x"}}, "cannot be a variable"),
        ({"variables": {"COMPOSE_FILE": "x"}}, "cannot be a variable"),
        ({"project": "Upper"}, "pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**settings)


def test_every_file_that_a_compose_file_names_is_found() -> None:
    document = {
        "include": ["more/a.yml", {"path": ["b.yml"], "env_file": "b.env"}],
        "services": {
            "web": {
                "env_file": ["a.env", {"path": "c.env", "required": False}],
                "volumes": [
                    "./www:/www:ro", "data:/data", "/abs:/abs", "${DIR:-conf}/x:/x", "${NOBODY}/x:/x",
                    {"type": "bind", "source": "./long", "target": "/l"}, {"type": "volume", "source": "data"},
                ],
                "build": {
                    "context": "./image", "dockerfile": "../Own",
                    "additional_contexts": {"more": "./more", "other": "service:other"},
                },
                "extends": {"file": "base.yml", "service": "web"},
            },
            "other": {"build": ".", "env_file": "${NAME}.env", "volumes": ["~/x:/x"]},
        },
        "configs": {"one": {"file": "./one.conf"}, "two": {"content": "x"}},
        "secrets": {"three": {"file": "./$NAME.txt"}},
    }  # fmt: skip
    assert sorted(references(document, {"NAME": "lab"}), key=lambda one: one.path) == [
        Reference(".", dockerfile="Dockerfile"), Reference("./image", dockerfile="../Own"),
        Reference("./image/../Own"), Reference("./lab.txt"), Reference("./long"), Reference("./more"),
        Reference("./one.conf"), Reference("./www"), Reference("a.env"), Reference("b.env"),
        Reference("b.yml", compose=True), Reference("base.yml", compose=True), Reference("c.env"),
        Reference("conf/x"), Reference("lab.env"),
        Reference("more/a.yml", compose=True),
    ]  # fmt: skip


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


SITE = {
    "site/compose.yml": "include: [part/more.yml]\nservices: {web: {volumes: ['./www:/www', './made:/made']}}\n",
    "site/part/more.yml": "services: {db: {env_file: db.env, ports: !override []}}\n",
    "site/part/db.env": "A=1\n",
    "site/www/index.html": "hello\n",
    "site/.env": "B=1\n",
    "other/file": "x",
}


def test_a_bundle_holds_what_the_project_names_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, SITE)
    (tmp_path / "site/www").chmod(0o750)
    made = bundle(spec(files=["site/compose.yml"], host="lab"), tmp_path)
    assert made.shipped() == (
        "site/.env", "site/compose.yml", "site/part/db.env", "site/part/more.yml", "site/www/index.html",
    )  # fmt: skip
    packed = base64.b64decode(made.packed({".skyspan-override.json": Secret("{}")}, ship=True).reveal())
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        entries = {item.name: item for item in archive}
    assert set(entries) == {*made.shipped(), "site", "site/part", "site/www", ".skyspan-override.json"}
    assert entries["site/www"].mode == 0o750
    assert entries[".skyspan-override.json"].mode == 0o600
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(made.packed({}, ship=False).reveal()))) as archive:
        assert not archive.getnames(), "what is read where it is goes nowhere"


def test_what_only_a_build_needs_goes_with_it_but_for_what_it_ignores(tmp_path: Path) -> None:
    text = "services: {web: {build: ./app}, db: {build: {context: ./both}, volumes: ['./both:/b']}}\n"
    context = {"Dockerfile": "FROM scratch\n", ".dockerignore": "*.log\n", "main.py": "x", "a.log": "x"}
    write(
        tmp_path,
        {"compose.yml": text, **{f"{top}/{name}": one for top in ("app", "both") for name, one in context.items()}},
    )
    made = bundle(spec(host="lab"), tmp_path)
    both = tuple(sorted(f"both/{name}" for name in context))
    assert made.shipped() == ("app/.dockerignore", "app/Dockerfile", "app/main.py", *both, "compose.yml")
    assert made.shipped(contexts=False) == (*both, "compose.yml")
    before = made.contents()
    write(tmp_path, {"app/a.log": "y"})
    assert made.contents() == before
    write(tmp_path, {"app/main.py": "y"})
    assert {name for name in before if before[name] != made.contents()[name]} == {"app"}


def test_contents_tell_when_a_file_changes_comes_or_goes(tmp_path: Path) -> None:
    write(tmp_path, SITE)
    made = bundle(spec(files=["site/compose.yml"]), tmp_path)
    before = made.contents()
    assert made.contents() == before
    (tmp_path / "site/www/index.html").write_text("again\n")
    assert {name for name in before if before[name] != made.contents()[name]} == {"site/www"}
    write(tmp_path, {"site/www/new": "x"})
    assert made.content("site/www") != before["site/www"]
    assert made.content("site/made") == ""


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        ({}, {}, "no Compose file"),
        ({}, {"files": ["none.yml"]}, "cannot be read"),
        ({"a.yml": "a: [\n"}, {"files": ["a.yml"]}, "no YAML"),
        ({"a.yml": "- a\n"}, {"files": ["a.yml"]}, "no mapping"),
        ({"a.yml": "services: {w: {env_file: ../x}}\n"}, {"files": ["a.yml"], "host": "lab"}, "outside of"),
    ],
)
def test_files_that_cannot_be_are_refused(
    tmp_path: Path, files: dict[str, str], settings: dict[str, Any], words: str
) -> None:
    write(tmp_path, files)
    with pytest.raises(SpecError, match=words):
        bundle(spec(**settings), tmp_path)


def test_the_usual_name_of_a_compose_file_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"docker-compose.yml": "services: {}\n", "compose.yml": "services: {}\n"})
    assert bundle(spec(), tmp_path).files == ("compose.yml",)


def test_a_project_is_read_from_what_compose_makes_of_the_files() -> None:
    one = project(scale={"web": 2})
    assert {name: (item.replicas, item.ends) for name, item in one.services.items()} == {
        "web": (2, False), "once": (1, True), "many": (3, False),
    }  # fmt: skip
    assert one.networks == {"default": "site_default"}
    assert one.external == ("clab",)
    assert Project.restore(json.loads(json.dumps(one.record()))) == replace(one, external=())
    with pytest.raises(SpecError, match="no service nobody"):
        project(scale={"nobody": 1})


def test_a_service_is_another_one_when_its_settings_or_files_are_and_not_when_its_folder_is() -> None:
    one = project()
    moved = json.loads(json.dumps(MODEL).replace("/t/1", "/var/lib/x"))
    assert project(moved, root="/var/lib/x").services == one.services
    told = project(told="other")
    assert [name for name in one.services if told.services[name] != one.services[name]] == ["web", "many"]
    network = json.loads(json.dumps(MODEL))
    network["networks"]["default"]["internal"] = True
    changed = project(network).services
    assert [name for name in one.services if changed[name] != one.services[name]] == ["web", "once"]
    more = json.loads(json.dumps(MODEL))
    more["services"]["many"]["deploy"]["replicas"] = 5
    assert project(more).services["many"].digest == one.services["many"].digest


def test_a_service_that_is_built_is_another_one_when_its_context_is() -> None:
    build = {"context": "/t/1/app", "dockerfile": "../Own", "additional_contexts": {"more": "/t/1/more"}}
    model = {
        "name": "site",
        "services": {"web": {"build": build}, "db": {"image": "lab/db:1", "build": {"context": "/x"}}},
    }
    first = project(model)
    assert (first.built, first.built_tags) == (("site-web", "lab/db:1"), ("site-web:latest", "lab/db:1"))
    read: list[str] = []

    def content(path: str) -> str:
        read.append(path)
        return ""

    parse_project(json.dumps(model), "/t/1", spec(), content, b"key")
    assert read == ["app", "Own", "more"], "a context elsewhere is nobody's business"
    second = project(model, told="another")
    changed = [name for name in first.services if first.services[name].digest != second.services[name].digest]
    assert changed == ["web"]
    assert Project.restore(json.loads(json.dumps(first.record()))) == first
    override = json.loads(first.override(OURS).reveal())
    assert override["services"]["web"]["build"] == {"labels": {"skyspan.image": OURS}}
    refuse_missing(first, Look("20", (1, 41)), "here", pull="never")


def test_files_of_this_machine_are_not_looked_for_behind_a_network() -> None:
    with pytest.raises(SpecError, match="service web wants /t/1/www"):
        project(engine={"endpoint": "tcp://192.0.2.7:2376"})


def test_the_override_marks_what_is_the_stages_own() -> None:
    said = json.loads(project().override(OURS).reveal())
    assert set(said["services"]) == {"web", "once", "many"}
    assert said["networks"] == {"default": {"labels": {OWNER: OURS}}}
    assert said["volumes"] == {"data": {"labels": {OWNER: OURS}}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"once": {"exit_code": 3}}, [("service once", Action.UPDATE)]),
        ({"web": {"state": "exited"}}, [("service web", Action.UPDATE)]),
        ({"web": {"health": "unhealthy"}}, [("service web", Action.UPDATE)]),
        ({"web": {"health": "starting"}}, []),
        ({"web": {"image_id": "sha256:2"}}, [("service web", Action.REPLACE)]),
        ({"web": {"labels": {OWNER: OURS}}}, [("service web", Action.CREATE)]),
    ],
)
def test_what_differs_is_named_by_service(changes: dict[str, Any], expected: list[tuple[str, Action]]) -> None:
    one = project()
    assert found(one, there(one, **changes)) == expected


def test_what_is_missing_too_much_or_no_longer_asked_for_is_named() -> None:
    one = project()
    assert found(one, Look("20", (1, 41))) == [
        ("network default", Action.CREATE), ("volume data", Action.CREATE), ("service web", Action.CREATE),
        ("service once", Action.CREATE), ("service many", Action.CREATE),
    ]  # fmt: skip
    fewer = replace(one, services={"many": replace(one.services["many"], replicas=1)})
    assert found(fewer, there(one)) == [
        ("service many", Action.UPDATE), ("service once", Action.DESTROY), ("service web", Action.DESTROY),
    ]  # fmt: skip


def test_others_projects_and_what_is_missing_are_refused() -> None:
    one = project()
    refuse_others("site", OURS, there(one), "lab")
    with pytest.raises(SpecError, match="belongs to stage default/other/x"):
        refuse_others("site", OURS, there(one, web={"labels": {
            "com.docker.compose.project": "site", OWNER: "default/other/x"}}), "lab")  # fmt: skip
    with pytest.raises(NotReadyError, match="external network clab"):
        refuse_missing(one, there(one), "lab", pull="missing")
    inside = replace(one, external=())
    refuse_missing(inside, there(one), "lab", pull="never")
    with pytest.raises(SpecError, match="no image x:1, y:1"):
        refuse_missing(inside, Look("20", (1, 41)), "lab", pull="never")


def test_commands_hold_no_secret_and_say_what_is_asked_for(tmp_path: Path) -> None:
    token = Secret("s3cr3t")
    asked = spec(
        inline={"services": {"web": {"environment": {"T": token}}}}, variables={"TOKEN": token},
        profiles=["extra"], scale={"web": 2}, services=["web"], pull="never",
    )  # fmt: skip
    files = bundle(asked, tmp_path)
    call = commands.Call(("-H", "unix:///x"), "site", OURS, asked, remote=False, shape="alone")
    read, made = commands.config(call, files), commands.up(call, files, Secret("{}"), 60.0, 660.0)
    for command in (read, made):
        assert "s3cr3t" not in repr(command) + command.display()
    assert (read.effect.value, made.effect.value) == ("read", "write")
    body = str(made.argv[2])
    assert "docker-compose -H unix:///x" in body
    assert "--wait --wait-timeout 60 --pull never --scale web=2 web" in body
    assert "--profile extra" in body
    assert "--wait" not in str(commands.up(call, files, Secret("{}"), None, 660.0).argv[2])
