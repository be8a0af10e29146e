"""What Compose makes of the files: services, networks and volumes, read from `config --format json` (pure)."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import digest
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.dockerengine.parse import BUILT, DIGEST, KEY, OWNER

FOLDER = "$(folder)"
"""Stands in digests for the folder of the project's files, which may be anywhere."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service: how many containers, whether they end, the digest of all that they are made from, and whether its
    image is built here."""

    name: str
    image: str
    replicas: int
    ends: bool
    digest: str
    built: bool = False

    def record(self) -> dict[str, Any]:
        """As it is kept."""
        return {name: getattr(self, name) for name in ("image", "replicas", "ends", "digest", "built")}

    @classmethod
    def restore(cls, name: str, record: Mapping[str, Any]) -> Service:
        """The service that `record` came from."""
        return cls(name, **record)


@dataclass(frozen=True, slots=True)
class Project:
    """What is wanted. `networks` and `volumes` are names on the daemon by those in the files; others' are left out."""

    name: str
    services: Mapping[str, Service]
    networks: Mapping[str, str]
    volumes: Mapping[str, str]
    external: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """The images of its services."""
        return tuple(dict.fromkeys(one.image for one in self.services.values() if one.image))

    @property
    def built(self) -> tuple[str, ...]:
        """Those of them that are built here."""
        return tuple(dict.fromkeys(one.image for one in self.services.values() if one.built))

    @property
    def built_tags(self) -> tuple[str, ...]:
        """The same as the daemon lists them."""
        return tuple(image if ":" in image.rpartition("/")[2] else f"{image}:latest" for image in self.built)

    def override(self, owner: str) -> Secret:
        """The Compose file that goes on top: labels that say whose everything is, and what it was made from."""
        services: dict[str, dict[str, Any]] = {
            name: {"labels": {OWNER: owner, KEY: name, DIGEST: one.digest}} for name, one in self.services.items()
        }
        for name, one in self.services.items():
            if one.built:
                services[name]["build"] = {"labels": {BUILT: owner}}
        mine = {"labels": {OWNER: owner}}
        found: dict[str, Any] = {"services": services}
        if self.networks:
            found["networks"] = dict.fromkeys(self.networks, mine)
        if self.volumes:
            found["volumes"] = dict.fromkeys(self.volumes, mine)
        return Secret(json.dumps(found))

    def record(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "name": self.name,
            "services": {name: one.record() for name, one in self.services.items()},
            "networks": dict(self.networks),
            "volumes": dict(self.volumes),
        }

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Project:
        """The project that `record` came from."""
        services = {name: Service.restore(name, one) for name, one in record["services"].items()}
        return cls(record["name"], services, record["networks"], record["volumes"])


def parse_project(text: str, root: str, spec: ComposeSpec, content: Callable[[str], str], key: bytes) -> Project:
    """The project that `compose config --format json` told of, its files being below `root`.

    `content` gives the digest of a file or folder by its path relative to that; `key` seals the digests. Raises
    SpecError, and ValueError or KeyError for what Compose cannot have printed.
    """
    model = json.loads(text)
    if spec.engine is not None and spec.engine.remote:
        _refuse_local_paths(model, root)
    model = _moved(model, root)
    found = model.get("services") or {}
    completed = {
        needed
        for one in found.values()
        for needed, how in (one.get("depends_on") or {}).items()
        if how.get("condition") == "service_completed_successfully"
    }
    unknown = sorted({*spec.scale, *spec.oneshot} - set(found))
    if unknown:
        raise SpecError(f"the Compose files have no service {', '.join(unknown)}", hint="see `scale` and `oneshot`")
    services = {
        name: Service(
            name=name,
            image=one.get("image") or f"{model['name']}-{name}",
            replicas=spec.scale.get(name, _replicas(one)),
            ends=name in completed or name in spec.oneshot,
            digest=digest([_parts(name, model), sorted(_contents(one, model, content))], key),
            built="build" in one,
        )
        for name, one in found.items()
    }
    return Project(
        name=model["name"],
        services=services,
        networks={name: one["name"] for name, one in _own(model, "networks")},
        volumes={name: one["name"] for name, one in _own(model, "volumes")},
        external=tuple(
            (one or {}).get("name", name)
            for name, one in (model.get("networks") or {}).items()
            if (one or {}).get("external")
        ),
    )


def _replicas(service: Mapping[str, Any]) -> int:
    if service.get("scale") is not None:
        return int(service["scale"])
    given = (service.get("deploy") or {}).get("replicas")
    return int(given) if given is not None else 1


def _own(model: Mapping[str, Any], section: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, one in (model.get(section) or {}).items():
        if not (one or {}).get("external"):
            yield name, one


def _parts(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The service, and the definitions of all that it uses."""
    service = model["services"][name]
    used: dict[str, Any] = {"service": {key: value for key, value in service.items() if key not in _ELSEWHERE}}
    if isinstance(deploy := service.get("deploy"), dict):
        used["service"]["deploy"] = {key: value for key, value in deploy.items() if key != "replicas"}
    named = {
        "networks": list(service.get("networks") or {}),
        "volumes": [one.get("source") for one in service.get("volumes") or () if one.get("type") == "volume"],
        "configs": [one.get("source") for one in service.get("configs") or ()],
        "secrets": [one.get("source") for one in service.get("secrets") or ()],
    }
    for section, names in named.items():
        there = model.get(section) or {}
        used[section] = {one: there[one] for one in names if one in there}
    return used


_ELSEWHERE = ("scale", "depends_on", "profiles")
"""What may change without a container having to be made anew."""


def _contents(service: Mapping[str, Any], model: Mapping[str, Any], content: Callable[[str], str]) -> Iterator[str]:
    """The digest of every file of the project that the service has in its containers, or its image is built from."""
    paths = [*_build_paths(service.get("build") or {})]
    paths += [one.get("source") for one in service.get("volumes") or () if one.get("type") == "bind"]
    for section in ("configs", "secrets"):
        defined = model.get(section) or {}
        paths += [(defined.get(one.get("source")) or {}).get("file") for one in service.get(section) or ()]
    for path in paths:
        if isinstance(path, str) and path.startswith(FOLDER):
            inside = posixpath.normpath(path.removeprefix(FOLDER).lstrip("/") or ".")
            yield f"{inside} {content(inside)}"


def _build_paths(build: Mapping[str, Any]) -> Iterator[Any]:
    if build:
        yield build["context"]
        yield posixpath.join(build["context"], build.get("dockerfile", "Dockerfile"))
        yield from (build.get("additional_contexts") or {}).values()


def _moved(value: Any, root: str) -> Any:
    """The model with `root` replaced wherever a text is a path below it."""
    if isinstance(value, dict):
        return {name: _moved(one, root) for name, one in value.items()}
    if isinstance(value, list):
        return [_moved(one, root) for one in value]
    if isinstance(value, str) and (value == root or value.startswith(root.rstrip("/") + "/")):
        return FOLDER + value[len(root.rstrip("/")) :]
    return value


def _refuse_local_paths(model: Mapping[str, Any], root: str) -> None:
    for name, one in (model.get("services") or {}).items():
        paths = [
            volume["source"]
            for volume in one.get("volumes") or ()
            if volume.get("type") == "bind" and str(volume.get("source", "")).startswith(root)
        ]
        for section in ("configs", "secrets"):
            defined = model.get(section) or {}
            used = [defined.get(use.get("source")) or {} for use in one.get(section) or ()]
            paths += [use["file"] for use in used if "file" in use]
        if paths:
            raise SpecError(
                f"service {name} wants {paths[0]}, which is here and not on the machine of the daemon",
                hint="reach that machine as `host`, over SSH, and the files go with the project",
            )
