"""What people and tools wrote passes the mask before it is stored; names that Skyspan gives itself do not change."""

from __future__ import annotations

from skyspan.engine.masking import masked_event
from skyspan.model.error import ToolFailedError
from skyspan.model.event import AttemptFailed, EffectIntended, Event, StageEnded, StagePlanned, StageProgressed
from skyspan.model.lifecycle import StageStatus

ERROR = ToolFailedError("hunter2 refused", detail="said hunter2", hint="not hunter2").record()
CHANGE = {"change": "create", "reason": "hunter2", "resources": [{"address": "x.hunter2", "note": "hunter2"}]}


def redact(text: str) -> str:
    return text.replace("hunter2", "***")


def test_every_free_text_is_masked() -> None:
    events: list[Event] = [
        StagePlanned("a", 1, CHANGE),
        StageProgressed("a", 1, "x.hunter2", "create", "done", "hunter2"),
        StageEnded("a", 1, StageStatus.FAILED, reason="hunter2", error=ERROR),
        AttemptFailed("a", 1, ERROR),
    ]
    for event in events:
        masked = masked_event(event, redact)
        assert "hunter2" not in str(masked)
        assert "***" in str(masked)
        assert type(masked) is type(event)


def test_an_event_without_secrets_is_the_same_object() -> None:
    events: list[Event] = [
        StagePlanned("a", 1, {"change": "none", "resources": []}),
        StageProgressed("a", 1, "x", "create", "done"),
        StageEnded("a", 1, StageStatus.SUCCEEDED),
        AttemptFailed("a", 1, ToolFailedError("no").record()),
        EffectIntended("a", 1, "apply"),
    ]
    for event in events:
        assert masked_event(event, redact) is event
