"""Images that a stage builds itself: what they are called, what they are made of, and how that gets to the daemon."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skyspan.contracts.context import ReadContext
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.providers import trees
from skyspan.providers.archive import archived
from skyspan.providers.docker.spec import BuildSettings, DockerSpec
from skyspan.providers.dockerengine import ignoring

_MOST_BYTES = 512 * 1024 * 1024
"""What goes to a host is held in memory meanwhile: a context beyond that has something in it that nobody needs."""


@dataclass(frozen=True, slots=True)
class WantedImage:
    """An image that is built from `folder`; its `name` is another one whenever anything that it is made from is.

    `key` is the first container that runs it, `given` the context as the settings name it, `names` its files."""

    name: str
    key: str
    given: str
    folder: Path
    names: tuple[str, ...]
    dockerfile: str
    argv: tuple[str, ...]

    def packed(self) -> bytes:
        """The context as a tar archive; raises SpecError for one that is too large to be sent along."""
        size = sum((self.folder / name).lstat().st_size for name in self.names)
        if size > _MOST_BYTES:
            raise SpecError(
                f"container {self.key}: its context {self.given!r} has {size // 2**20} MB, too much to go to a host",
                hint=f"name what the build does not need in {posixpath.join(self.given, ignoring.FILE)}",
            )
        return archived(trees.entries(self.folder, self.names))


def wanted_images(spec: DockerSpec, ctx: ReadContext, key: bytes) -> Mapping[str, WantedImage]:
    """The images that are built, by container; `key` seals their names. Raises SpecError for a context that is not."""
    found: dict[str, WantedImage] = {}
    for name, one in spec.containers.items():
        if one.build is not None:
            image = _image(name, one.build, ctx, key)
            found[name] = next((other for other in found.values() if other.name == image.name), image)
    return found


def _image(container: str, build: BuildSettings, ctx: ReadContext, key: bytes) -> WantedImage:
    folder = ctx.folder / build.context
    dockerfile = posixpath.normpath(build.dockerfile)
    if not (folder / dockerfile).is_file():
        missing = f"no Dockerfile {dockerfile!r} in" if folder.is_dir() else "no folder"
        raise SpecError(
            f"container {container}: there is {missing} {build.context!r}",
            hint="`build.context` is relative to the composition's folder, `build.dockerfile` to the context",
        )
    files = tuple(trees.walk(folder, ".", ignoring.of_context(folder, dockerfile)))
    words = [f"--build-arg={name}={value}" for name, value in sorted(build.args.items())]
    words += ["--target", build.target] if build.target is not None else []
    sealed = digest([trees.content(files), dockerfile, words], key)
    return WantedImage(
        name=f"{_repository(ctx.address)}:{sealed[:_TAG]}",
        key=container,
        given=build.context,
        folder=folder.resolve(),
        names=tuple(name for name, _ in files),
        dockerfile=dockerfile,
        argv=tuple(words),
    )


_TAG = 20
"""Digits of the tag: enough that no two of a stage are ever the same."""


def is_ours(name: str, address: StageAddress) -> bool:
    """Whether an image that is marked as the stage's is its own, by its name; one without a name is."""
    return ":" not in name or name.startswith(f"{_repository(address)}:")


def _repository(address: StageAddress) -> str:
    """The images' name without its tag. Docker looks for what begins with `localhost` on this machine alone, so that
    nobody else can give it an image of that name."""
    return "localhost/skyspan/" + re.sub(r"[_-]+", "-", f"{address.deployment.name}-{address.name}").strip("-")
