"""Owns the one cipher: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), random nonces, and its byte layout."""

from __future__ import annotations

import secrets

from skyspan.model.error import SealError

KEY_BYTES = 32
KEY_ID_BYTES = 8

_FORMAT = 1
_ALGORITHM = 1
_NONCE_BYTES = 24
_TAG_BYTES = 16
_MAGIC = b"SK"
_PREFIX = _MAGIC + bytes((_FORMAT, _ALGORITHM))
_HEADER_BYTES = len(_PREFIX) + KEY_ID_BYTES


def header(key_id: bytes) -> bytes:
    """What everything begins with that `encrypt` makes under that key."""
    return _PREFIX + key_id


def encrypt(key_id: bytes, key: bytes, bound_to: tuple[str, ...], data: bytes) -> bytes:
    """`SK`, format, algorithm, key id (8), nonce (24), ciphertext; it opens only with the same key and `bound_to`."""
    from nacl import bindings

    head = header(key_id)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    text = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(data, _associated(head, bound_to), nonce, key)
    return head + nonce + text


def key_id_of(sealed: bytes) -> bytes:
    """Which key opens `sealed`; raises SealError when it is nothing that `encrypt` made."""
    if len(sealed) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES or not sealed.startswith(_MAGIC):
        raise SealError("this is no sealed value", hint="the data is damaged: restore it from a backup")
    if not sealed.startswith(_PREFIX):
        found = f"format {sealed[len(_MAGIC)]}, algorithm {sealed[len(_MAGIC) + 1]}"
        raise SealError(f"the value is sealed in an unknown way ({found})", hint="a newer Skyspan may have written it")
    return sealed[len(_PREFIX) : _HEADER_BYTES]


def decrypt(key: bytes, bound_to: tuple[str, ...], sealed: bytes) -> bytes | None:
    """What was encrypted; None for another key, another `bound_to` or damage, which cannot be told apart."""
    from nacl import bindings
    from nacl.exceptions import CryptoError

    head, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
    text = sealed[_HEADER_BYTES + _NONCE_BYTES :]
    try:
        data: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(text, _associated(head, bound_to), nonce, key)
    except CryptoError:
        return None
    return data


def _associated(head: bytes, bound_to: tuple[str, ...]) -> bytes:
    """The header and every part with its length, so that no two bindings have the same bytes."""
    parts = [part.encode() for part in bound_to]
    return head + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
