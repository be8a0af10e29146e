"""Takes known secrets out of an event before it is stored or shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from skyspan.model.event import AttemptFailed, Event, RunStarted, StageEnded, StagePlanned, StageProgressed
from skyspan.model.value import transform


def masked_event(event: Event, redact: Callable[[str], str]) -> Event:
    """The event with every text that people or tools wrote passed through `redact`.

    Names that Skyspan gives itself (stages, kinds, statuses) are left alone. The same object when nothing was hidden.
    """
    match event:
        case RunStarted(approved=approved) if approved is not None:
            masked = {stage: _masked(change, redact) for stage, change in approved.items()}
            return event if masked == approved else replace(event, approved=masked)
        case StagePlanned():
            change = _masked(event.change, redact)
            return event if change == event.change else replace(event, change=change)
        case StageProgressed():
            address, detail = redact(event.address), redact(event.detail)
            if (address, detail) == (event.address, event.detail):
                return event
            return replace(event, address=address, detail=detail)
        case StageEnded():
            reason = redact(event.reason)
            error = None if event.error is None else _masked(event.error, redact)
            if (reason, error) == (event.reason, event.error):
                return event
            return replace(event, reason=reason, error=error)
        case AttemptFailed():
            error = _masked(event.error, redact)
            return event if error == event.error else replace(event, error=error)
        case _:
            return event


def _masked(record: Mapping[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    masked: dict[str, Any] = transform(record, lambda leaf: redact(leaf) if isinstance(leaf, str) and leaf else leaf)
    return masked
