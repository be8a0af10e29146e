"""What is sent to a lab's host: the topology and the files that it needs, as one archive named by its content."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import revealed
from skyspan.providers.archive import Entry, archived, compressed
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
    """The files by their place in the lab's folder, and the topology's own name there."""

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
    """Read what `spec` names below `folder`. Raises SpecError for what is missing or far too large."""
    if isinstance(spec.topology, dict):
        # JSON is YAML (YAML 1.2, section 1.3), and netlab says what is wrong by names, not lines.
        text = json.dumps(revealed(spec.topology), indent=1).encode()
        return Package(TOPOLOGY, {TOPOLOGY: (0o600, text), **_files(spec, folder, PurePosixPath("."))})
    path = folder / spec.topology
    if path.is_dir():
        if not (path / TOPOLOGY).is_file():
            raise SpecError(f"the folder {spec.topology!r} has no {TOPOLOGY}", hint="name the topology's file itself")
        found = dict(_tree(path, PurePosixPath(".")))
        return _checked(Package(TOPOLOGY, {**found, **_files(spec, folder, PurePosixPath(spec.topology))}))
    if not path.is_file():
        raise SpecError(f"no topology {spec.topology!r} in {folder}", hint="the path is relative to the composition")
    beside = PurePosixPath(spec.topology).parent
    found = {path.name: _entry(path)}
    defaults = path.parent / "topology-defaults.yml"
    if defaults.is_file():
        found[defaults.name] = _entry(defaults)
    return _checked(Package(path.name, {**found, **_files(spec, folder, beside)}))


def _files(spec: NetlabSpec, folder: Path, base: PurePosixPath) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    for name in spec.files:
        path, place = folder / name, PurePosixPath(name)
        if not path.exists():
            raise SpecError(f"no file {name!r} in {folder}", hint="`files` are relative to the composition")
        place = place.relative_to(base) if base in place.parents or base == place else place
        found.update(_tree(path, place) if path.is_dir() else ((str(place), _entry(path)),))
    return found


def _tree(path: Path, place: PurePosixPath) -> Iterator[tuple[str, tuple[int, bytes]]]:
    for child in sorted(path.iterdir()):
        if child.name in _MADE_BY_NETLAB or child.name.startswith("clab-"):
            continue
        if child.is_dir():
            yield from _tree(child, place / child.name)
        elif child.is_file():
            yield str(place / child.name), _entry(child)


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
