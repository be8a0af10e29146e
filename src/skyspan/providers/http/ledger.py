"""What a stage with `each` keeps: for every item the settings by which it was sent, and what its request remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from skyspan.contracts.context import Kept, KeptWriter
from skyspan.model.value import tagged, untagged
from skyspan.providers.http.spec import HttpSpec

_NAME = "items"


class Ledger:
    """The items that were sent, or may have been, by key."""

    def __init__(self, records: dict[str, dict[str, Any]]) -> None:
        self._records = records
        self._writing = asyncio.Lock()
        self._wanted = self._written = 0

    @classmethod
    async def load(cls, kept: Kept) -> Ledger | None:
        """What was kept; None when there is nothing."""
        data = await kept.get(_NAME)
        return None if data is None else cls(json.loads(data))

    @property
    def keys(self) -> tuple[str, ...]:
        """Every item's key."""
        return tuple(self._records)

    def spec(self, key: str) -> HttpSpec:
        """The settings by which an item was last sent: those that undo it."""
        return HttpSpec.model_validate(untagged(self._records[key]["spec"]))

    def part(self, key: str) -> Part:
        """What an item's request remembers, to be read."""
        return Part(self._remembered(key))

    def writable(self, key: str, kept: KeptWriter) -> WritablePart:
        """The same, written through to `kept`."""
        return WritablePart(self._remembered(key), self, kept)

    async def announce(self, specs: Mapping[str, HttpSpec], kept: KeptWriter) -> None:
        """Note, before anything is sent, what will be."""
        for key, spec in specs.items():
            self._records.setdefault(key, {"kept": {}})["spec"] = tagged(
                spec.model_dump(exclude_unset=True, by_alias=True)
            )
        await self.write(kept)

    async def drop(self, key: str, kept: KeptWriter) -> None:
        """Forget an item that is gone."""
        self._records.pop(key, None)
        await self.write(kept)

    async def write(self, kept: KeptWriter) -> None:
        """Durable when the call returns; what several items want to write at once is one write."""
        self._wanted += 1
        own = self._wanted
        async with self._writing:
            if self._written >= own:
                return
            so_far = self._wanted
            await kept.put(_NAME, self._data())
            self._written = so_far

    def write_soon(self, kept: KeptWriter) -> None:
        """Durable with what is written next."""
        kept.put_soon(_NAME, self._data())

    @staticmethod
    async def forget(kept: KeptWriter) -> None:
        """Forget all."""
        await kept.remove(_NAME)

    def _remembered(self, key: str) -> dict[str, str]:
        record = self._records.get(key, {"kept": {}})
        found: dict[str, str] = record["kept"]
        return found

    def _data(self) -> bytes:
        return json.dumps(self._records, separators=(",", ":")).encode()


class Part:
    """What one request keeps (a `Kept`)."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    async def get(self, name: str) -> bytes | None:
        text = self._texts.get(name)
        return None if text is None else text.encode()


class WritablePart(Part):
    """The same, writable (a `KeptWriter`): all of the ledger is written with it; what may wait is, by its owner."""

    def __init__(self, texts: dict[str, str], ledger: Ledger, kept: KeptWriter) -> None:
        super().__init__(texts)
        self._ledger = ledger
        self._kept = kept

    async def put(self, name: str, data: bytes) -> None:
        self._texts[name] = data.decode()
        await self._ledger.write(self._kept)

    def put_soon(self, name: str, data: bytes) -> None:
        self._texts[name] = data.decode()

    async def remove(self, name: str) -> None:
        if self._texts.pop(name, None) is not None:
            await self._ledger.write(self._kept)
