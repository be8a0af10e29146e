"""Owns a workspace's keys as they stand in `HOME/keys/WORKSPACE`: wrapped by the master key, or by two.

The ids of all keys stand there in clear, so that a process that knows the keys sees a change without unwrapping.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skyspan.model.error import SealError
from skyspan.secrets import aead
from skyspan.secrets.master_key import MasterKey

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class WorkspaceKeys:
    """A workspace's keys: those that seal, by id, which of them seals new values, and the one for fingerprints."""

    active: bytes
    sealing: Mapping[bytes, bytes] = field(repr=False)
    fingerprint: bytes = field(repr=False)

    def renewed(self) -> WorkspaceKeys:
        """The same with one more key, which seals from now on."""
        key_id = secrets.token_bytes(aead.KEY_ID_BYTES)
        return replace(self, active=key_id, sealing={**self.sealing, key_id: secrets.token_bytes(aead.KEY_BYTES)})

    def retired(self) -> WorkspaceKeys:
        """The same without the keys that seal no more."""
        return replace(self, sealing={self.active: self.sealing[self.active]})

    def joined(self, other: WorkspaceKeys) -> WorkspaceKeys:
        """These, able to open what `other` sealed, with the fingerprints of `other`."""
        return replace(self, sealing={**other.sealing, **self.sealing}, fingerprint=other.fingerprint)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What stands in a key file, read but not unwrapped. `wraps` are the same keys, wrapped by one master key each."""

    workspace: str
    where: str
    active: bytes
    ids: frozenset[bytes]
    wraps: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def masters(self) -> tuple[bytes, ...]:
        """The ids of the master keys that open it, the one in use first."""
        return tuple(aead.key_id_of(_bytes(wrap["fingerprint"])) for wrap in self.wraps)

    def known_to(self, keys: WorkspaceKeys | None) -> WorkspaceKeys | None:
        """The record's keys, if `keys` has them all: then there is nothing to unwrap."""
        if keys is None or not self.ids <= keys.sealing.keys():
            return None
        return replace(keys, active=self.active, sealing={key_id: keys.sealing[key_id] for key_id in self.ids})

    def unwrap(self, master: MasterKey) -> WorkspaceKeys:
        """The keys. Raises SealError for another master key or damage."""
        for wrap, wrapped_by in zip(self.wraps, self.masters, strict=True):
            if wrapped_by == master.id:
                with _reading(self.where):
                    return self._opened(wrap, master)
        raise SealError(
            f"the keys of workspace {self.workspace} are locked with another master key",
            detail=f"{self.where} needs key {self.masters[0].hex()}, this home has {master.id.hex()}",
            hint="restore the home's key file that belongs to it from a backup",
        )

    def _opened(self, wrap: Mapping[str, Any], master: MasterKey) -> WorkspaceKeys:
        def one(role: str, text: str) -> bytes:
            key = aead.decrypt(master.key, (self.workspace, role), _bytes(text))
            if key is None or len(key) != aead.KEY_BYTES:
                raise ValueError
            return key

        sealing = {bytes.fromhex(name): one(f"sealing|{name}", text) for name, text in wrap["sealing"].items()}
        if sealing.keys() != self.ids or self.active not in sealing:
            raise ValueError
        return WorkspaceKeys(self.active, sealing, one("fingerprint", wrap["fingerprint"]))


def new_keys() -> WorkspaceKeys:
    """Keys for a workspace that has none."""
    first = secrets.token_bytes(aead.KEY_ID_BYTES)
    return WorkspaceKeys(first, {first: secrets.token_bytes(aead.KEY_BYTES)}, secrets.token_bytes(aead.KEY_BYTES))


def wrapped(workspace: str, keys: WorkspaceKeys, master: MasterKey, *also: MasterKey) -> bytes:
    """The content of the key file: `keys` wrapped by `master`, and by each of `also`."""
    record = {
        "format": _FORMAT,
        "active": keys.active.hex(),
        **_wrap(workspace, keys, master),
        **({"also": [_wrap(workspace, keys, other) for other in also]} if also else {}),
    }
    return json.dumps(record).encode() + b"\n"


def read_record(workspace: str, path: Path, content: bytes) -> KeyRecord:
    """What stands in a key file. Raises SealError when it makes no sense."""
    with _reading(str(path)):
        record = json.loads(content)
        if record["format"] != _FORMAT:
            raise SealError(f"{path} has an unknown format", hint="a newer Skyspan may have written it")
        wraps = (
            {"sealing": record["sealing"], "fingerprint": record["fingerprint"]},
            *record.get("also", ()),
        )
        found = KeyRecord(
            workspace,
            str(path),
            bytes.fromhex(record["active"]),
            frozenset(bytes.fromhex(key_id) for key_id in record["sealing"]),
            wraps,
        )
        # Looked at now, so that damage shows here and not where the ids are compared.
        if not found.masters:
            raise ValueError
        return found


def _wrap(workspace: str, keys: WorkspaceKeys, master: MasterKey) -> dict[str, Any]:
    def one(role: str, key: bytes) -> str:
        return base64.b64encode(aead.encrypt(master.id, master.key, (workspace, role), key)).decode()

    return {
        "sealing": {key_id.hex(): one(f"sealing|{key_id.hex()}", key) for key_id, key in keys.sealing.items()},
        "fingerprint": one("fingerprint", keys.fingerprint),
    }


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class _reading:  # noqa: N801 - reads as what it does
    """What cannot be read inside is damage of the file `where`."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError | KeyError | TypeError | AttributeError):
            raise SealError(
                f"{self._where} is damaged",
                hint="restore it from a backup: what it sealed cannot be opened without it",
            ) from None


def workspaces(home: Path) -> Iterator[str]:
    """The workspaces that have keys, by name."""
    from skyspan.model.address import is_name

    folder = home / "keys"
    if folder.is_dir():
        yield from sorted(path.name for path in folder.iterdir() if is_name(path.name))
