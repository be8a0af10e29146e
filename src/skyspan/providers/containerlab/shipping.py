"""The files of a lab as they travel: what the topology names, in one tar archive, told apart by their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyspan.model.diagnostic import Position
from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.providers.archive import Entry, Shape, archived
from skyspan.providers.containerlab.topology import Topology

_IGNORED = frozenset({".git", "__pycache__", ".DS_Store"})


@dataclass(frozen=True, slots=True)
class Shipment:
    """Files by their path in the tree on the host; `folder` is the topology's there. `content` tells two shipments
    apart, `nodes` the files of each node."""

    files: Mapping[str, Path]
    folder: str
    content: str
    nodes: Mapping[str, str]

    def archive(self, topology: str, text: str) -> bytes:
        """Everything as a tar archive, with the topology `text` under the path `topology`; the same for the same."""
        entries = [_entry(name, path) for name, path in self.files.items() if name != topology]
        return archived([*entries, Entry(topology, text.encode())])


def gather(topology: Topology, folder: Path, more: Sequence[str], file: str) -> Shipment:
    """Find everything that the topology in `folder` names, and the files and folders of `more`.

    Raises SpecError naming what is not there, by node and setting.
    """
    base = folder.resolve()
    named = {node.name: [(item.path, item.setting) for item in node.files] for node in topology.nodes}
    missing = []
    found: dict[str, list[Path]] = {name: [] for name in named}
    extra: list[Path] = []
    generated = f"clab-{topology.name}"
    for node, items in [*named.items(), ("", [(path, "files") for path in more])]:
        for text, setting in items:
            path = Path(os.path.normpath(base / text))
            if not path.exists():
                # containerlab makes some files in its own folder before it looks for them.
                if Path(os.path.normpath(text)).parts[:1] == (generated,) and setting == "binds":
                    continue
                missing.append(f"{f'node {node}, ' if node else ''}{setting}: no file {text!r} in {folder}")
            (found[node] if node else extra).append(path)
    if missing:
        raise SpecError(
            f"{Position(file)}: files that the lab needs are not there",
            detail="\n".join(missing),
            hint="paths are relative to the topology's folder",
        )
    every = [*extra, *(path for paths in found.values() for path in paths)]
    top = Path(os.path.commonpath([base, *every]))
    files: dict[str, Path] = {}
    try:
        for path in every:
            files |= {child.relative_to(top).as_posix(): child for child in _files(path)}
        sums = {name: _digest(path) for name, path in sorted(files.items())}
    except OSError as error:
        raise SpecError(f"{Position(file)}: a file that the lab needs cannot be read: {error}") from error
    nodes = {
        node: digest([[name, sums[name]] for path in paths for name in _names(path, top)])
        for node, paths in found.items()
    }
    relative = base.relative_to(top).as_posix()
    return Shipment(dict(sorted(files.items())), relative, digest(sums), nodes)


def _names(path: Path, top: Path) -> list[str]:
    return sorted(child.relative_to(top).as_posix() for child in _files(path))


def _files(path: Path) -> Iterator[Path]:
    """The files there, and folders without any: a node may write into one."""
    if path.is_file():
        yield path
    elif path.is_dir():
        children = (child for child in sorted(path.iterdir()) if child.name not in _IGNORED)
        yield from [file for child in children for file in _files(child)] or [path]


def _entry(name: str, path: Path) -> Entry:
    mode = path.stat().st_mode & 0o777
    return Entry(name, mode=mode, shape=Shape.FOLDER) if path.is_dir() else Entry(name, path.read_bytes(), mode)


def _digest(path: Path) -> str:
    if path.is_dir():
        return "folder"
    with path.open("rb") as stream:
        return f"{path.stat().st_mode & 0o777:o} {hashlib.file_digest(stream, 'blake2b').hexdigest()}"
