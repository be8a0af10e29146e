"""Owns the replacing of keys, safe against a crash at every step.

Data keys: a new one seals from now on and the old ones still open; when nothing sealed by those is left, they go.
Master key: every workspace's keys are wrapped by the old and the new one, then one rename decides, then the old wraps
go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from skyspan.model.error import SealError
from skyspan.model.secret import Secret
from skyspan.secrets import private_file
from skyspan.secrets.keyring import KeyRecord, read_record, workspaces, wrapped
from skyspan.secrets.locked import creating
from skyspan.secrets.master_key import (
    KEY_FILE,
    PASSPHRASE_FILE,
    MasterKey,
    new_key_file,
    new_passphrase_file,
    open_master_key,
    read_key_file,
    read_passphrase_file,
)

Step = Callable[[str], None]
"""Told the name of each step right after it is durable; a test may die there."""

_NEXT = ".next"


@dataclass(frozen=True, slots=True)
class Rotation:
    """The keys of one home, being replaced. Hold `locked.rotating` meanwhile."""

    home: Path
    passphrase: Secret | None
    step: Step = field(default=lambda _: None)

    def begin_data(self, workspace: str) -> bool:
        """Let a new key seal from now on; False when an interrupted rotation is gone on with instead.

        Raises SealError when the workspace has no keys."""
        with creating(self.home):
            master = open_master_key(self.home, self.passphrase)
            keys = self._record(workspace).unwrap(master)
            if len(keys.sealing) > 1:
                return False
            self._write(workspace, wrapped(workspace, keys.renewed(), master), "new data key")
        return True

    def finish_data(self, workspace: str) -> None:
        """Forget the keys that seal no more. Only when nothing that they sealed is left anywhere."""
        with creating(self.home):
            master = open_master_key(self.home, self.passphrase)
            keys = self._record(workspace).unwrap(master)
            self._write(workspace, wrapped(workspace, keys.retired(), master), "old data keys gone")

    def master(self, new_passphrase: Secret | None) -> bool:
        """Replace the master key by one derived from `new_passphrase`, or by one in a key file.

        False when an interrupted replacement was finished instead: nothing new was made."""
        with creating(self.home):
            if self._finish_interrupted():
                return False
            old = open_master_key(self.home, self.passphrase)
            name = KEY_FILE if new_passphrase is None else PASSPHRASE_FILE
            new, content = new_key_file() if new_passphrase is None else new_passphrase_file(new_passphrase)
            # One that is there already was never decided for: nothing depends on it.
            private_file.replace(self.home / (name + _NEXT), content)
            self.step("new master key")
            for workspace in workspaces(self.home):
                keys = self._record(workspace).unwrap(old)
                self._write(workspace, wrapped(workspace, keys, old, new), f"{workspace} wrapped twice")
            private_file.rename(self.home / (name + _NEXT), self.home / name)
            self.step("decided")
            self._strip(new, keep=name)
        return True

    def interrupted(self) -> bool:
        """Whether a replacement of the master key was decided for, but its old wraps are still there."""
        records = [self._record(workspace) for workspace in workspaces(self.home)]
        both = all((self.home / name).exists() for name in (KEY_FILE, PASSPHRASE_FILE))
        return both or any(len(record.wraps) > 1 for record in records)

    def _finish_interrupted(self) -> bool:
        """End a replacement that was decided for; one that was not decided for is as if it had never been."""
        names = [name for name in (KEY_FILE, PASSPHRASE_FILE) if (self.home / name).exists()]
        records = [self._record(workspace) for workspace in workspaces(self.home)]
        twice = [record for record in records if len(record.wraps) > 1]
        if len(names) < 2 and not twice:
            return False
        newest = {record.masters[-1] for record in twice or records}
        for name in names:
            master = self._try(name)
            if master is not None and master.id in newest:
                self._strip(master, keep=name)
                return True
        return False

    def _try(self, name: str) -> MasterKey | None:
        path = self.home / name
        content = private_file.read(path) or b""
        if name == KEY_FILE:
            return read_key_file(path, content)
        return None if self.passphrase is None else read_passphrase_file(path, content, self.passphrase)

    def _strip(self, new: MasterKey, keep: str) -> None:
        """Leave only what `new` opens, and of the master keys only that in the file `keep`."""
        others = [name for name in (KEY_FILE, PASSPHRASE_FILE) if name != keep and (self.home / name).exists()]
        openers = [new, *(key for name in others if (key := self._try(name)) is not None)]
        for workspace in workspaces(self.home):
            record = self._record(workspace)
            if record.masters != (new.id,):
                opener = next((key for key in openers if key.id in record.masters), new)
                self._write(workspace, wrapped(workspace, record.unwrap(opener), new), f"{workspace} wrapped once")
        for name in (*others, KEY_FILE + _NEXT, PASSPHRASE_FILE + _NEXT):
            if (self.home / name).exists():
                private_file.remove(self.home / name)
                self.step(f"{name} removed")

    def _record(self, workspace: str) -> KeyRecord:
        path = self.home / "keys" / workspace
        content = private_file.read(path)
        if content is None:
            raise SealError(
                f"workspace {workspace} has no keys yet", hint="they are made when it first stores something"
            )
        return read_record(workspace, path, content)

    def _write(self, workspace: str, content: bytes, step: str) -> None:
        private_file.replace(self.home / "keys" / workspace, content)
        self.step(step)
