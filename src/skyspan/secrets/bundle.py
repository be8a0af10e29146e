"""Owns the keys that travel in a backup: always wrapped; the key file itself never leaves its home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyspan.model.address import is_name
from skyspan.model.error import SealError
from skyspan.model.secret import Secret
from skyspan.secrets import private_file
from skyspan.secrets.keyring import KeyRecord, WorkspaceKeys, read_record, workspaces, wrapped
from skyspan.secrets.locked import creating
from skyspan.secrets.master_key import (
    KEY_FILE,
    PASSPHRASE_FILE,
    MasterKey,
    open_master_key,
    read_key_file,
    read_passphrase_file,
)


@dataclass(frozen=True, slots=True)
class KeyBundle:
    """Key files by workspace, and how the passphrase leads to their master key, where it is one."""

    records: Mapping[str, str] = field(repr=False)
    passphrase_record: str | None = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """As it stands in a backup."""
        return {"workspaces": dict(self.records), "passphrase": self.passphrase_record}

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> KeyBundle:
        """The inverse; raises SealError for what makes no sense."""
        records, passphrase = document.get("workspaces"), document.get("passphrase")
        if not isinstance(records, dict) or not all(is_name(name) for name in records):
            raise SealError("the backup's keys are damaged", hint="take another backup file")
        return cls(records, passphrase)


def collect(home: Path) -> KeyBundle:
    """All keys of a home, wrapped as they stand. Hold `locked.rotating(shared=True)` meanwhile."""
    records = {name: (private_file.read(home / "keys" / name) or b"").decode() for name in workspaces(home)}
    content = private_file.read(home / PASSPHRASE_FILE)
    return KeyBundle(records, None if content is None else content.decode())


def key_file(home: Path) -> Path | None:
    """The file without which the home's keys cannot be unwrapped; None where a passphrase does that."""
    path = home / KEY_FILE
    return path if path.exists() else None


def unlock(
    bundle: KeyBundle, home: Path, passphrase: Secret | None, key: Path | None = None
) -> dict[str, WorkspaceKeys]:
    """The bundle's keys, unwrapped by the home's master key, the passphrase it was locked with, or the key file `key`.

    Raises SealError that says which key is missing; writes nothing."""
    if not bundle.records:
        return {}
    masters = _masters(bundle, home, passphrase, key)
    found: dict[str, WorkspaceKeys] = {}
    for workspace, text in bundle.records.items():
        record = read_record(workspace, Path(f"keys/{workspace} of the backup"), text.encode())
        found[workspace] = record.unwrap(_that_opens(record, masters, home, bundle))
    return found


def adopt(bundle: KeyBundle, home: Path, passphrase: Secret | None, key: Path | None = None) -> None:
    """Make everything openable in this home that the bundle's keys have sealed; what it could open, it still can."""
    opened = unlock(bundle, home, passphrase, key)
    with creating(home):
        if _is_new(home) and bundle.passphrase_record is not None:
            private_file.create_once(home / PASSPHRASE_FILE, bundle.passphrase_record.encode())
        master = open_master_key(home, passphrase)
        for workspace, keys in opened.items():
            path = home / "keys" / workspace
            content = private_file.read(path)
            if content is not None:
                keys = read_record(workspace, path, content).unwrap(master).joined(keys)
            private_file.replace(path, wrapped(workspace, keys, master))


def _is_new(home: Path) -> bool:
    return not any((home / name).exists() for name in (KEY_FILE, PASSPHRASE_FILE))


def _masters(bundle: KeyBundle, home: Path, passphrase: Secret | None, key: Path | None) -> Sequence[MasterKey]:
    found = []
    for path in filter(None, (home / KEY_FILE, key)):
        content = private_file.read(path)
        if content is not None:
            found.append(read_key_file(path, content))
        elif path is key:
            raise SealError(f"there is no key file {path}")
    if passphrase is not None:
        for where, text in (
            (home / PASSPHRASE_FILE, private_file.read(home / PASSPHRASE_FILE)),
            (Path("the backup/passphrase"), (bundle.passphrase_record or "").encode()),
        ):
            if text:
                found.append(read_passphrase_file(where, text, passphrase))
    return found


def _that_opens(record: KeyRecord, masters: Sequence[MasterKey], home: Path, bundle: KeyBundle) -> MasterKey:
    for master in masters:
        if master.id in record.masters:
            return master
    needed = f"It needs the master key {record.masters[0].hex()}."
    if bundle.passphrase_record is not None:
        raise SealError(
            "the backup's keys are locked with a passphrase that was not given",
            detail=needed,
            hint="set SKYSPAN_PASSPHRASE to the one of the home that the backup is from",
        )
    raise SealError(
        "the backup's keys are locked with a key file that this home does not have",
        detail=needed,
        hint=f"name the copy of that key file with --key, or put it at {home / KEY_FILE} (mode 0600) in a new home",
    )
