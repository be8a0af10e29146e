"""What a run of a playbook comes from, as one digest: its settings, its hosts and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from skyspan.contracts.host import Host
from skyspan.model.value import digest
from skyspan.providers.ansible.spec import AnsibleSpec


def origin(spec: AnsibleSpec, hosts: Mapping[str, Host], folder: Path, sources: tuple[str, ...]) -> str:
    """Changes whenever a run could do something else. It may come from secrets: keep it sealed, show it nowhere."""
    facts = {name: {item.name: getattr(host, item.name) for item in fields(host)} for name, host in hosts.items()}
    files = {source: _content(folder / source) for source in sources}
    return digest([spec.model_dump(mode="python"), facts, files])


def _content(path: Path) -> str:
    total = hashlib.blake2b(digest_size=32)
    for file in _files(path):
        total.update(f"{file}:".encode())
        total.update(hashlib.blake2b(file.read_bytes()).digest())
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _files(child)
