"""The files of a project: found in the composition's folder, told apart by content, packed for a host."""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import revealed
from skyspan.providers import trees
from skyspan.providers.archive import Entry, archived
from skyspan.providers.compose.references import references
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.providers.dockerengine import ignoring

USUAL = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""What a Compose file is called where nobody says so, in Compose's own order."""

INLINE = ".skyspan-inline.json"
OVERRIDE = ".skyspan-override.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a project is made of. Paths are relative to the composition's folder.

    `files` are the Compose files, first to last; `inline` is the text of one that has no file; `named` are files and
    folders that they name, and that exist; `base` is the folder that their own paths are relative to. `contexts` are
    those of `named` that only builds need, each with its Dockerfiles.
    """

    folder: Path
    files: tuple[str, ...]
    base: str
    named: tuple[str, ...]
    contexts: Mapping[str, tuple[str, ...]]
    inline: Secret | None = None

    def content(self, path: str) -> str:
        """A digest of a file or of all that is in a folder; empty where there is none."""
        return trees.content(self._walk(path))

    def contents(self) -> dict[str, str]:
        """The digest of everything, by path."""
        return {path: self.content(path) for path in (*self.files, *self.named)}

    def packed(self, generated: Mapping[str, Secret], *, ship: bool, contexts: bool = True) -> Secret:
        """A tar archive in base64 with the generated files, readable by their owner, and, with `ship`, all others; of
        what only builds need, nothing without `contexts`."""
        extra = {INLINE: self.inline} if self.inline is not None else {}
        archive = archived(
            [
                *(trees.entries(self.folder, self.shipped(contexts=contexts)) if ship else ()),
                *(Entry(name, text.reveal().encode(), 0o600) for name, text in {**extra, **generated}.items()),
            ]
        )
        return Secret(base64.encodebytes(archive).decode())

    def shipped(self, *, contexts: bool = True) -> tuple[str, ...]:
        """The paths of all files that `packed` adds with `ship`."""
        wanted = (path for path in (*self.files, *self.named) if contexts or path not in self.contexts)
        return tuple(sorted({name for path in wanted for name, _ in self._walk(path)}))

    def _walk(self, path: str) -> Iterator[tuple[str, Path]]:
        dockerfiles = self.contexts.get(path)
        left_out = ignoring.of_context(self.folder / path, *dockerfiles) if dockerfiles is not None else None
        return trees.walk(self.folder, path, left_out)


def bundle(spec: ComposeSpec, folder: Path) -> Bundle:
    """The files of a project; raises SpecError for Compose files that are not there or are no YAML."""
    if spec.inline is not None:
        text = json.dumps(revealed(spec.inline))
        return Bundle(folder, (), "", *_named({"": spec.inline}, spec, folder), inline=Secret(text))
    files = spec.files or _usual(folder)
    documents = {name: _document(folder, name) for name in files}
    return Bundle(folder, files, posixpath.dirname(files[0]), *_named(documents, spec, folder))


def _usual(folder: Path) -> tuple[str, ...]:
    found = next((name for name in USUAL if (folder / name).is_file()), None)
    if found is None:
        raise SpecError(
            f"no Compose file in {folder}: neither of {', '.join(USUAL)}", hint="name it in `files`, or write `inline`"
        )
    return (found,)


def _document(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        found = yaml.load((folder / name).read_bytes(), _Loader)
    except OSError as error:
        hint = "`files` are relative to the composition's folder"
        raise SpecError(f"the Compose file {name!r} cannot be read: {error.strerror}", hint=hint) from error
    except yaml.YAMLError as error:
        raise SpecError(f"the Compose file {name!r} is no YAML", detail=str(error)) from error
    if not isinstance(found, Mapping):
        raise SpecError(f"the Compose file {name!r} holds no mapping")
    return found


class _Loader(yaml.CSafeLoader):
    """Reads what Compose reads: its own tags (`!reset`, `!override`) say how files are laid over each other."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("!", _tagged)


def _named(
    documents: Mapping[str, Mapping[str, Any]], spec: ComposeSpec, folder: Path
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """What the documents name, and what those name, as far as it exists; and which of it are contexts of builds alone,
    with their Dockerfiles."""
    variables = {name: str(revealed(value)) for name, value in spec.variables.items()}
    first = next(iter(documents))
    base = posixpath.dirname(first)
    found = dict.fromkeys(spec.ship)
    contexts: dict[str, list[str]] = {}
    whole = set(spec.ship)
    settings = posixpath.join(base, ".env")
    if (folder / settings).is_file():
        found[settings] = None
    # All given files share the folder of the first; those that are included or extended have their own.
    waiting = [(base, document) for document in documents.values()]
    read = set(documents)
    while waiting:
        base, document = waiting.pop()
        for reference in references(document, variables):
            path = posixpath.normpath(posixpath.join(base, reference.path))
            if path.startswith("../"):
                if spec.host is not None:
                    raise SpecError(
                        f"{reference.path!r} is outside of the composition's folder, and cannot go to {spec.host}",
                        hint="move it into the folder, or name a path of the host",
                    )
                continue
            if not (folder / path).exists():
                continue
            found[path] = None
            if reference.dockerfile:
                contexts.setdefault(path, []).append(reference.dockerfile)
            else:
                whole.add(path)
            if reference.compose and path not in read and (folder / path).is_file():
                read.add(path)
                waiting.append((posixpath.dirname(path), _document(folder, path)))
    named = tuple(path for path in found if path not in documents)
    return named, {path: tuple(files) for path, files in contexts.items() if path not in whole}
