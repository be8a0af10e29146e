"""Owns the sealing of stored values: envelope encryption with keys per workspace (a `contracts.store.Sealer`)."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skyspan.model.address import is_name
from skyspan.model.error import SealError
from skyspan.model.secret import Secret
from skyspan.secrets import aead, private_file
from skyspan.secrets.master_key import MasterKey, open_master_key

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _WorkspaceKeys:
    """A workspace's keys: those that seal, by id, which of them seals new values, and the one for fingerprints."""

    active: bytes
    sealing: Mapping[bytes, bytes] = field(repr=False)
    fingerprint: bytes = field(repr=False)


class EnvelopeSealer:
    """Seals under keys kept, wrapped by the home's master key, in `HOME/keys/WORKSPACE`.

    Everything is made on first use and nothing is read before it. Several processes may share a home.
    """

    def __init__(self, home: Path, passphrase: Secret | None = None) -> None:
        self._home = home
        self._passphrase = passphrase
        self._master: MasterKey | None = None
        self._workspaces: dict[str, _WorkspaceKeys] = {}

    def unlock(self) -> None:
        """Open the master key now, so that a wrong passphrase or a damaged key file is found early (SealError)."""
        self._master_key()

    def seal(self, workspace: str, place: str, data: bytes) -> bytes:
        """Ciphertext of `data` that opens only for the same workspace and `place`."""
        keys = self._keys(workspace)
        return aead.encrypt(keys.active, keys.sealing[keys.active], (workspace, place), data)

    def open(self, workspace: str, place: str, sealed: bytes) -> bytes:
        """The data; raises SealError for a wrong key, damage or another place."""
        key_id = aead.key_id_of(sealed)
        keys = self._existing(workspace)
        if keys is not None and key_id not in keys.sealing:
            # Another process may have rotated since this one read the file.
            del self._workspaces[workspace]
            keys = self._existing(workspace)
        if keys is None or key_id not in keys.sealing:
            raise SealError(
                f"the key that sealed {place} of workspace {workspace} is missing",
                detail=f"key {key_id.hex()} is not in {self._path(workspace)}",
                hint="restore that file from a backup, or set the value anew",
            )
        data = aead.decrypt(keys.sealing[key_id], (workspace, place), sealed)
        if data is None:
            raise SealError(
                f"{place} of workspace {workspace} cannot be opened: it is damaged or was moved from elsewhere",
                hint="restore it from a backup, or set the value anew",
            )
        return data

    def fingerprint_key(self, workspace: str) -> bytes:
        """A key for keyed digests (32 bytes), stable for the workspace, also when its sealing keys are rotated."""
        return self._keys(workspace).fingerprint

    def _keys(self, workspace: str) -> _WorkspaceKeys:
        """The workspace's keys, made on first use."""
        keys = self._existing(workspace)
        if keys is None:
            master, path = self._master_key(), self._path(workspace)
            private_file.create_once(path, _wrapped(master, workspace, _new_keys()))
            # Another process may have been first: what stands in the file counts.
            keys = self._existing(workspace)
        if keys is None:
            raise SealError(f"{self._path(workspace)} disappeared", hint="does something clean up the home?")
        return keys

    def _existing(self, workspace: str) -> _WorkspaceKeys | None:
        keys = self._workspaces.get(workspace)
        if keys is None:
            path = self._path(workspace)
            content = private_file.read(path)
            if content is None:
                return None
            keys = self._workspaces[workspace] = _unwrapped(self._master_key(), workspace, path, content)
        return keys

    def _master_key(self) -> MasterKey:
        if self._master is None:
            self._master = open_master_key(self._home, self._passphrase)
        return self._master

    def _path(self, workspace: str) -> Path:
        if not is_name(workspace):
            raise SealError(f"{workspace!r} is no workspace name", hint="lower-case letters, digits, `-` and `_`")
        return self._home / "keys" / workspace


def _new_keys() -> _WorkspaceKeys:
    first = secrets.token_bytes(aead.KEY_ID_BYTES)
    return _WorkspaceKeys(first, {first: secrets.token_bytes(aead.KEY_BYTES)}, secrets.token_bytes(aead.KEY_BYTES))


def _wrapped(master: MasterKey, workspace: str, keys: _WorkspaceKeys) -> bytes:
    def wrap(role: str, key: bytes) -> str:
        return base64.b64encode(aead.encrypt(master.id, master.key, (workspace, role), key)).decode()

    record = {
        "format": _FORMAT,
        "active": keys.active.hex(),
        "sealing": {key_id.hex(): wrap(f"sealing|{key_id.hex()}", key) for key_id, key in keys.sealing.items()},
        "fingerprint": wrap("fingerprint", keys.fingerprint),
    }
    return json.dumps(record).encode() + b"\n"


def _unwrapped(master: MasterKey, workspace: str, path: Path, content: bytes) -> _WorkspaceKeys:
    def unwrap(role: str, text: str) -> bytes:
        sealed = base64.b64decode(text, validate=True)
        wrapped_by = aead.key_id_of(sealed)
        if wrapped_by != master.id:
            raise SealError(
                f"the keys of workspace {workspace} are locked with another master key",
                detail=f"{path} needs key {wrapped_by.hex()}, this home has {master.id.hex()}",
                hint="restore the home's key file that belongs to it from a backup",
            )
        key = aead.decrypt(master.key, (workspace, role), sealed)
        if key is None or len(key) != aead.KEY_BYTES:
            raise _damaged(path)
        return key

    try:
        record = json.loads(content)
        if record["format"] != _FORMAT:
            raise SealError(f"{path} has an unknown format", hint="a newer Skyspan may have written it")
        return _WorkspaceKeys(
            bytes.fromhex(record["active"]),
            {bytes.fromhex(key_id): unwrap(f"sealing|{key_id}", text) for key_id, text in record["sealing"].items()},
            unwrap("fingerprint", record["fingerprint"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path) from None


def _damaged(path: Path) -> SealError:
    return SealError(f"{path} is damaged", hint="restore it from a backup: what it sealed cannot be opened without it")
