"""Owns the sealing of stored values: envelope encryption with keys per workspace (a `contracts.store.Sealer`)."""

from __future__ import annotations

from pathlib import Path

from skyspan.model.address import is_name
from skyspan.model.error import SealError
from skyspan.model.secret import Secret
from skyspan.secrets import aead, private_file
from skyspan.secrets.keyring import WorkspaceKeys, new_keys, read_record, wrapped
from skyspan.secrets.locked import creating
from skyspan.secrets.master_key import MasterKey, open_master_key

Signature = tuple[int, int, int]


class EnvelopeSealer:
    """Seals under keys kept, wrapped by the home's master key, in `HOME/keys/WORKSPACE`.

    Everything is made on first use and nothing is read before it. Several processes may share a home: each value is
    sealed under the key that the file names at that moment, so a rotation needs no restart of anybody.
    """

    def __init__(self, home: Path, passphrase: Secret | None = None) -> None:
        self._home = home
        self._passphrase = passphrase
        self._master: MasterKey | None = None
        self._workspaces: dict[str, tuple[Signature, WorkspaceKeys]] = {}

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
        known = self._workspaces.get(workspace)
        keys = known[1] if known is not None and key_id in known[1].sealing else self._existing(workspace)
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

    def current(self, workspace: str) -> bytes:
        """What every value begins with that is sealed under the key in use."""
        return aead.header(self._keys(workspace).active)

    def _keys(self, workspace: str) -> WorkspaceKeys:
        """The workspace's keys as they are now, made on first use."""
        keys = self._existing(workspace)
        if keys is None:
            path = self._path(workspace)
            with creating(self._home):
                # Opened under the lock: a rotation may have replaced the master key meanwhile.
                self._master = open_master_key(self._home, self._passphrase)
                # Another process may have been first: what stands in the file counts.
                private_file.create_once(path, wrapped(workspace, new_keys(), self._master))
            keys = self._existing(workspace)
        if keys is None:
            raise SealError(f"{self._path(workspace)} disappeared", hint="does something clean up the home?")
        return keys

    def _existing(self, workspace: str) -> WorkspaceKeys | None:
        path = self._path(workspace)
        while True:
            now = private_file.signature(path)
            known = self._workspaces.get(workspace)
            if known is not None and known[0] == now:
                return known[1]
            try:
                keys = self._read(workspace, path, known[1] if known else None)
            except SealError:
                if private_file.signature(path) == now:
                    raise
                # A rotation replaced the file between one look and the next: look again.
                continue
            if now is None or keys is None:
                self._workspaces.pop(workspace, None)
                return None
            self._workspaces[workspace] = (now, keys)
            return keys

    def _read(self, workspace: str, path: Path, known: WorkspaceKeys | None) -> WorkspaceKeys | None:
        content = private_file.read(path)
        if content is None:
            return None
        record = read_record(workspace, path, content)
        keys = record.known_to(known)
        if keys is None:
            if self._master is not None and self._master.id not in record.masters:
                self._master = None
            keys = record.unwrap(self._master_key())
        return keys

    def _master_key(self) -> MasterKey:
        if self._master is None:
            self._master = open_master_key(self._home, self._passphrase)
        return self._master

    def _path(self, workspace: str) -> Path:
        if not is_name(workspace):
            raise SealError(f"{workspace!r} is no workspace name", hint="lower-case letters, digits, `-` and `_`")
        return self._home / "keys" / workspace
