"""A forwarder whose changes pass a gate, so that the process that drives it can die at each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from skyspan.contracts.forwarding import ForwarderControl, ForwarderState, Forwarding, Trouble


class GatedForwarder:
    """A `ForwarderControl`; `effect` is called with every change, to carry it out or not."""

    def __init__(
        self, forwarder: ForwarderControl, effect: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    ) -> None:
        self._forwarder = forwarder
        self._effect = effect

    async def look(self) -> ForwarderState | None:
        """What it does."""
        return await self._forwarder.look()

    async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
        """How a connection was led on."""
        return await self._forwarder.heard(name, after, timeout_s)

    async def forward(self, forwarding: Forwarding, *, anew: bool = False) -> None:
        """Have it do this."""
        await self._effect(lambda: self._forwarder.forward(forwarding, anew=anew))

    async def reconnect(self) -> None:
        """Have it connect anew."""
        await self._effect(self._forwarder.reconnect)

    async def end(self) -> None:
        """End it."""
        await self._effect(self._forwarder.end)
