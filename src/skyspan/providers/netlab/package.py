"""What is sent to a lab's host: the topology and the files that it needs, as one archive named by its content."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import revealed
from skyspan.providers.archive import Entry, archived, compressed
from skyspan.providers.netlab.named import needed
from skyspan.providers.netlab.spec import NetlabSpec

TOPOLOGY = "topology.yml"
"""The name that an inline topology gets, and that netlab looks for in a folder."""

_MADE_BY_NETLAB = frozenset(
    (
        "ansible.cfg", "clab.yml", "clab_files", "external.txt", "group_vars", "host_vars", "hosts.yml",
        "netlab.lock", "netlab.snapshot.pickle", "netlab.snapshot.yml", "node_files", "Vagrantfile", ".vagrant",
        ".git", "__pycache__",
    )
)  # fmt: skip
"""What netlab itself writes beside a topology: from an earlier run by hand, and no part of the description."""

_LIMIT = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Package:
    """The files by their place in the composition's folder, the topology among them: they lie to each other on the
    lab's host as they do here."""

    topology: str
    files: Mapping[str, tuple[int, bytes]] = field(repr=False)

    @property
    def digest(self) -> str:
        """Changes with every name, mode and byte (64 hexadecimal digits)."""
        total = hashlib.blake2b(self.topology.encode(), digest_size=32)
        for name, (mode, data) in sorted(self.files.items()):
            total.update(json.dumps([name, mode, hashlib.blake2b(data).hexdigest()]).encode())
        return total.hexdigest()

    def archive(self) -> Secret:
        """A tar of them in base64, the same for the same files; a secret, as an inline topology may hold some."""
        entries = (Entry(name, data, mode) for name, (mode, data) in sorted(self.files.items()))
        return Secret(base64.b64encode(compressed(archived(entries))).decode())


def sources(spec: NetlabSpec) -> tuple[str, ...]:
    """Files and folders of the composition that are part of the lab's description."""
    return (*((spec.topology,) if isinstance(spec.topology, str) else ()), *spec.files)


def packed(spec: NetlabSpec, folder: Path) -> Package:
    """Read what `spec` names below `folder`, and what the topology does. Raises SpecError for what is missing, outside
    of the folder, or far too large."""
    folder = Path(os.path.normpath(folder))
    if isinstance(spec.topology, dict):
        # JSON is YAML (YAML 1.2, section 1.3), and netlab says what is wrong by names, not lines.
        path, entry = folder / TOPOLOGY, (0o600, json.dumps(revealed(spec.topology), indent=1).encode())
        named: list[Path] = []
    else:
        path = folder / spec.topology
        named = [path] if path.is_dir() else []
        path = path / TOPOLOGY if path.is_dir() else path
        if named and not path.is_file():
            raise SpecError(f"the folder {spec.topology!r} has no {TOPOLOGY}", hint="name the topology's file itself")
        if not path.is_file():
            raise SpecError(
                f"no topology {spec.topology!r} in {folder}", hint="the path is relative to the composition"
            )
        entry = _entry(path)
    for name in spec.files:
        if not (folder / name).exists():
            raise SpecError(f"no file {name!r} in {folder}", hint="`files` are relative to the composition")
        named.append(folder / name)
    found = dict(_tree(folder, (*named, *needed(path, entry[1], folder))))
    topology = str(path.relative_to(folder))
    return _checked(Package(topology, {**found, topology: entry}))


def _tree(folder: Path, paths: Iterable[Path]) -> Iterator[tuple[str, tuple[int, bytes]]]:
    for path in paths:
        if path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
            continue  # a way back up has no end
        if path.is_dir():
            children = (child for child in sorted(path.iterdir()) if child.name not in _MADE_BY_NETLAB)
            yield from _tree(folder, (child for child in children if not child.name.startswith("clab-")))
        elif path.is_file():
            yield str(path.relative_to(folder)), _entry(path)


def _entry(path: Path) -> tuple[int, bytes]:
    return (0o755 if path.stat().st_mode & 0o100 else 0o644), path.read_bytes()


def _checked(package: Package) -> Package:
    size = sum(len(data) for _, data in package.files.values())
    if size > _LIMIT:
        raise SpecError(
            f"the lab's files are {size // 2**20} MiB, and {_LIMIT // 2**20} are sent at most",
            hint="name the topology's file and its `files` instead of the whole folder",
        )
    return package
