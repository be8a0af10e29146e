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

_KEY_FILE = "key"
_PASSPHRASE_FILE = "passphrase"
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
    a damaged file, or a file that others may read.
    """
    if passphrase is None:
        if private_file.read(home / _PASSPHRASE_FILE) is not None:
            raise SealError(f"{home} is locked with a passphrase and none was given", hint="give the passphrase")
        return _from_file(home / _KEY_FILE)
    if private_file.read(home / _KEY_FILE) is not None:
        raise SealError(
            f"{home} is locked with the key file {home / _KEY_FILE}, not with a passphrase",
            hint="leave the passphrase out, or choose another home with `--home`",
        )
    return _from_passphrase(home / _PASSPHRASE_FILE, passphrase)


def _from_file(path: Path) -> MasterKey:
    content = private_file.read(path)
    if content is None:
        parts = (secrets.token_bytes(aead.KEY_ID_BYTES).hex(), secrets.token_bytes(aead.KEY_BYTES).hex())
        private_file.create_once(path, " ".join((_KEY_WORD, *parts)).encode() + b"\n")
        # Another process may have been first: what stands in the file counts.
        content = private_file.read(path) or b""
    try:
        word, key_id, key = content.decode("ascii").split()
        made = MasterKey(bytes.fromhex(key_id), bytes.fromhex(key))
    except ValueError:
        raise _damaged(path) from None
    if word != _KEY_WORD or len(made.id) != aead.KEY_ID_BYTES or len(made.key) != aead.KEY_BYTES:
        raise _damaged(path)
    return made


def _from_passphrase(path: Path, passphrase: Secret) -> MasterKey:
    content = private_file.read(path)
    if content is None:
        private_file.create_once(path, _new_passphrase_record(passphrase))
        content = private_file.read(path) or b""
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


def _new_passphrase_record(passphrase: Secret) -> bytes:
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
    return json.dumps(record).encode() + b"\n"


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
