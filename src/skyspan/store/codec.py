"""How values become columns and back: JSON, sealed JSON, and text that every database accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from skyspan.contracts.store import Sealer
from skyspan.model.error import StoreCorruptError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, Value, leaves, tagged, untagged


def place(table: str, identity: tuple[str, ...], column: str) -> str:
    """Where a sealed value belongs: `table|row|column`. Two different rows never give the same text."""
    row = "/".join(part if part.isidentifier() else quote(part, safe="") for part in identity)
    return f"{table}|{row}|{column}"


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def to_json(value: Any) -> str:
    """Compact ASCII: whatever a tool printed, no database refuses it."""
    return _ENCODER.encode(value)


def plain(text: str) -> str:
    r"""`text` without what a text column cannot hold: NUL and lone surrogates become `\x00`-like escapes."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what cannot be decoded into StoreCorruptError; `what` names the row."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise StoreCorruptError(
            f"{what} cannot be read back from the store",
            detail=f"{type(problem).__name__}: {problem}",
            hint="Restore the store from a backup.",
        ) from problem


class Codec:
    """Seals and opens values for one store."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, workspace: str, where: str, value: Value) -> bytes:
        """`value` (secrets included) as ciphertext for the place `where`."""
        return self._sealer.seal(workspace, where, to_json(tagged(value)).encode())

    def open(self, workspace: str, where: str, sealed: bytes) -> Value:
        """The value sealed for `where`; raises SealError."""
        data = self._sealer.open(workspace, where, bytes(sealed))
        with reading(where):
            return untagged(json.loads(data))

    def seal_bytes(self, workspace: str, where: str, data: bytes) -> bytes:
        """`data` as ciphertext for the place `where`."""
        return self._sealer.seal(workspace, where, data)

    def open_bytes(self, workspace: str, where: str, sealed: bytes) -> bytes:
        """The bytes sealed for `where`; raises SealError."""
        return self._sealer.open(workspace, where, bytes(sealed))

    def output_columns(self, workspace: str, where: str, output: OutputValue) -> dict[str, Any]:
        """`value` or `value_sealed`: in clear only if it is not sensitive and holds no secret."""
        if output.sensitive or any(isinstance(leaf, Secret) for leaf in leaves(output.value)):
            return {"value": None, "value_sealed": self.seal(workspace, where, output.value)}
        return {"value": to_json(output.value), "value_sealed": None}
