"""Owns the age files (age-encryption.org/v1) in which a deployment travels to another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from skyspan.model.error import SealError, UsageError
from skyspan.model.secret import Secret

_SCRYPT = b"-> scrypt "


def encrypt_to(recipients: Sequence[str], data: bytes) -> bytes:
    """`data` for everybody who has the identity of one of `recipients`: `age1…`, `ssh-ed25519 …` or `ssh-rsa …`.

    Raises UsageError for what is no recipient."""
    age = _age()
    sealed: bytes = age.encrypt(data, [_recipient(age, text) for text in recipients])
    return sealed


def encrypt_with(passphrase: Secret, data: bytes) -> bytes:
    """`data` for everybody who knows `passphrase`."""
    sealed: bytes = _age().passphrase.encrypt(data, passphrase.reveal())
    return sealed


def wants_passphrase(sealed: bytes) -> bool:
    """Whether a passphrase, not an identity, opens it."""
    return _SCRYPT in sealed[:200]


def decrypt(sealed: bytes, identities: Sequence[Path], passphrase: Secret | None) -> bytes:
    """The data; raises SealError when neither opens it, or when it is damaged."""
    age = _age()
    try:
        if wants_passphrase(sealed):
            if passphrase is None:
                raise SealError("the file is locked with a passphrase", hint="give it on standard input")
            opened: bytes = age.passphrase.decrypt(sealed, passphrase.reveal())
        else:
            found = [identity for path in identities for identity in _identities(age, path)]
            if not found:
                raise SealError("the file is for the owner of an age identity", hint="name its file with --identity")
            opened = age.decrypt(sealed, found)
    except age.DecryptError as error:
        raise SealError(
            "the file cannot be opened", detail=str(error), hint="it is for somebody else, or it is damaged"
        ) from error
    return opened


def _recipient(age: ModuleType, text: str) -> Any:
    kind = age.ssh if text.startswith("ssh-") else age.x25519
    try:
        return kind.Recipient.from_str(text.strip())
    except age.RecipientError as error:
        raise UsageError(
            f"{text!r} is no age recipient", detail=str(error), hint="age1…, or the text of an SSH public key"
        ) from error


def _identities(age: ModuleType, path: Path) -> list[Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the identity file {path}: {error.strerror}") from error
    try:
        if b"PRIVATE KEY-----" in content:
            return [age.ssh.Identity.from_buffer(content)]
        lines = (line.strip() for line in content.decode(errors="replace").splitlines())
        return [age.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except age.IdentityError as error:
        raise UsageError(f"{path} holds no age identity", detail=str(error)) from error


def _age() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise SealError("the library for age files is missing", hint="pip install pyrage") from error
    return pyrage
