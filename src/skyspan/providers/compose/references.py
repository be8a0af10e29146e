"""Which files a Compose file names beside itself, as paths relative to its own folder (pure).

What they are is in the Compose specification: `env_file`, bind mounts, `configs`, `secrets`, `build`, `label_file` of a
service; `extends` and `include` name further Compose files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\}|(?P<plain>\w+))")


@dataclass(frozen=True, slots=True)
class Reference:
    """A path as written, its variables filled in; `compose` when it is another Compose file, `dockerfile` (relative to
    it) when it is the context of a build."""

    path: str
    compose: bool = False
    dockerfile: str = ""


def references(document: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Reference]:
    """Every relative path in the document. One with a variable that nobody knows is left out."""
    for found in _all(document):
        path = _filled(found.path, variables)
        if path is not None and path and not path.startswith(("/", "~")) and "://" not in path:
            yield replace(found, path=path)


def _all(document: Mapping[str, Any]) -> Iterator[Reference]:
    for item in _list(document.get("include")):
        for path in _list(item.get("path") if isinstance(item, Mapping) else item):
            yield Reference(str(path), compose=True)
        if isinstance(item, Mapping):
            yield from _env_files(item)
    for section in ("configs", "secrets"):
        for one in _mapping(document.get(section)).values():
            if isinstance(one, Mapping) and isinstance(one.get("file"), str):
                yield Reference(one["file"])
    for service in _mapping(document.get("services")).values():
        if isinstance(service, Mapping):
            yield from _service(service)


def _service(service: Mapping[str, Any]) -> Iterator[Reference]:
    yield from _env_files(service)
    for path in _list(service.get("label_file")):
        yield Reference(str(path))
    for volume in _list(service.get("volumes")):
        if isinstance(volume, Mapping):
            if volume.get("type") == "bind" and isinstance(volume.get("source"), str):
                yield Reference(volume["source"])
        elif isinstance(volume, str) and volume.startswith((".", "$")) and ":" in volume:
            yield Reference(_source(volume))
    yield from _build(service.get("build"))
    extends = service.get("extends")
    if isinstance(extends, Mapping) and isinstance(extends.get("file"), str):
        yield Reference(extends["file"], compose=True)


def _build(build: Any) -> Iterator[Reference]:
    if isinstance(build, str):
        yield Reference(build, dockerfile="Dockerfile")
    elif isinstance(build, Mapping):
        context, dockerfile = str(build.get("context") or "."), str(build.get("dockerfile") or "Dockerfile")
        yield Reference(context, dockerfile=dockerfile)
        if dockerfile.startswith("../"):
            yield Reference(posixpath.join(context, dockerfile))
        more = build.get("additional_contexts")
        named = more.values() if isinstance(more, Mapping) else [str(one).partition("=")[2] for one in _list(more)]
        yield from (Reference(path) for path in named if isinstance(path, str) and not path.startswith("service:"))


def _env_files(one: Mapping[str, Any]) -> Iterator[Reference]:
    for item in _list(one.get("env_file")):
        path = item.get("path") if isinstance(item, Mapping) else item
        if isinstance(path, str):
            yield Reference(path)


def _source(volume: str) -> str:
    """What stands before the colon of a short mount, past those within `${A:-b}`."""
    depth = 0
    for place, letter in enumerate(volume):
        depth += (letter == "{") - (letter == "}")
        if letter == ":" and depth == 0:
            return volume[:place]
    return volume


def _filled(text: str, variables: Mapping[str, str]) -> str | None:
    unknown = False

    def fill(match: re.Match[str]) -> str:
        nonlocal unknown
        name = match["braced"] or match["plain"]
        value = variables.get(name, match["default"])
        unknown = unknown or value is None
        return value or ""

    filled = _VARIABLE.sub(fill, text)
    return None if unknown else filled


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
