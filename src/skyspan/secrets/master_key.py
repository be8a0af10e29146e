"""Owns the key that wraps all others: kept in a file of the home, or derived from a passphrase."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from skyspan.model.error import SealError
from skyspan.model.secret import Secret
from skyspan.secrets import aead, private_file

KEY_FILE = "key"
PASSPHRASE_FILE = "passphrase"
_KEY_WORD = "skyspan-key-1"
_CHECK = ("master", "check")
_SALT_BYTES = 16
# RFC 9106 section 4, the second recommended choice: about a fifth of a second.
_OPERATIONS = 3
_MEMORY_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key encryption key and its id, which stands in everything it wraps."""

    id: bytes
    key: bytes = field(repr=False)


def open_master_key(home: Path, passphrase: Secret | None) -> MasterKey:
    """The home's master key, made on first use: from `passphrase` when one is given, else in the file `HOME/key`.

    How a home is locked is decided on that first use. Raises SealError for a wrong, missing or superfluous passphrase,
    a damaged file, or a file that others may read. While both files exist (a change of one for the other was
    interrupted), both open everything.
    """
    by_file = private_file.read(home / KEY_FILE)
    by_passphrase = private_file.read(home / PASSPHRASE_FILE)
    if passphrase is None:
        if by_passphrase is not None and by_file is None:
            raise SealError(
                f"{home} is locked with a passphrase and none was given",
                hint="set SKYSPAN_PASSPHRASE or SKYSPAN_PASSPHRASE_COMMAND",
            )
        return _from_file(home / KEY_FILE)
    if by_file is not None and by_passphrase is None:
        raise SealError(
            f"{home} is locked with the key file {home / KEY_FILE}, not with a passphrase",
            hint="leave the passphrase out, or choose another home with `--home`",
        )
    return _from_passphrase(home / PASSPHRASE_FILE, passphrase)


def new_key_file() -> tuple[MasterKey, bytes]:
    """A fresh master key, and the content of the file that holds it."""
    made = MasterKey(secrets.token_bytes(aead.KEY_ID_BYTES), secrets.token_bytes(aead.KEY_BYTES))
    return made, f"{_KEY_WORD} {made.id.hex()} {made.key.hex()}\n".encode()


def new_passphrase_file(passphrase: Secret) -> tuple[MasterKey, bytes]:
    """A master key derived from `passphrase` and fresh salt, and the record that leads back to it."""
    key_id, salt = secrets.token_bytes(aead.KEY_ID_BYTES), secrets.token_bytes(_SALT_BYTES)
    key = _derived(passphrase, salt, _OPERATIONS, _MEMORY_BYTES)
    record = {
        "format": 1,
        "algorithm": "argon2id",
        "id": key_id.hex(),
        "salt": salt.hex(),
        "operations": _OPERATIONS,
        "memory": _MEMORY_BYTES,
        "check": base64.b64encode(aead.encrypt(key_id, key, _CHECK, key_id)).decode(),
    }
    return MasterKey(key_id, key), json.dumps(record).encode() + b"\n"


def read_key_file(path: Path, content: bytes) -> MasterKey:
    """The master key in a key file. Raises SealError for damage."""
    try:
        word, key_id, key = content.decode("ascii").split()
        made = MasterKey(bytes.fromhex(key_id), bytes.fromhex(key))
    except ValueError:
        raise _damaged(path) from None
    if word != _KEY_WORD or len(made.id) != aead.KEY_ID_BYTES or len(made.key) != aead.KEY_BYTES:
        raise _damaged(path)
    return made


def read_passphrase_file(path: Path, content: bytes, passphrase: Secret) -> MasterKey:
    """The master key that `passphrase` and its record make. Raises SealError for a wrong one, or damage."""
    try:
        record = json.loads(content)
        key_id, salt = bytes.fromhex(record["id"]), bytes.fromhex(record["salt"])
        operations, memory = int(record["operations"]), int(record["memory"])
        check = base64.b64decode(record["check"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise _damaged(path) from None
    key = _derived(passphrase, salt, operations, memory)
    opened = aead.decrypt(key, _CHECK, check)
    if opened is None or not hmac.compare_digest(opened, key_id):
        raise SealError(f"the passphrase does not open {path.parent}", hint="give the passphrase it was locked with")
    return MasterKey(key_id, key)


def _from_file(path: Path) -> MasterKey:
    content = private_file.read(path)
    if content is None:
        private_file.create_once(path, new_key_file()[1])
        # Another process may have been first: what stands in the file counts.
        content = private_file.read(path) or b""
    return read_key_file(path, content)


def _from_passphrase(path: Path, passphrase: Secret) -> MasterKey:
    content = private_file.read(path)
    if content is None:
        private_file.create_once(path, new_passphrase_file(passphrase)[1])
        content = private_file.read(path) or b""
    return read_passphrase_file(path, content, passphrase)


def _derived(passphrase: Secret, salt: bytes, operations: int, memory: int) -> bytes:
    from nacl import pwhash
    from nacl.exceptions import CryptoError

    text = passphrase.reveal().encode(errors="surrogateescape")
    try:
        key: bytes = pwhash.argon2id.kdf(aead.KEY_BYTES, text, salt, opslimit=operations, memlimit=memory)
    except (CryptoError, ValueError, TypeError, OverflowError) as error:
        raise SealError(
            "the master key cannot be derived from the passphrase",
            detail=str(error),
            hint=f"Argon2id needs {memory // 2**20} MiB of memory; if there is enough, the passphrase file is damaged",
        ) from error
    return key


def _damaged(path: Path) -> SealError:
    return SealError(f"{path} is damaged", hint="restore it from a backup: without it nothing sealed can be opened")
