"""Reads the tools' `-json` stream (machine-readable UI, protocol 1.x): the one place that knows its format. Pure.

The format: https://opentofu.org/docs/internals/machine-readable-ui/ (Terraform's is the same, apart from the key of
the tool's version). Unknown types and keys are to be expected: they are shown by their `@message`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from skyspan.model.change import Action

PROTOCOL_MAJOR = 1

_NOTHING: Mapping[str, Any] = MappingProxyType({})

ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "create": Action.CREATE,
        "update": Action.UPDATE,
        "replace": Action.REPLACE,
        "delete": Action.DESTROY,
        "remove": Action.UPDATE,
        "forget": Action.UPDATE,
        "move": Action.UPDATE,
        "import": Action.UPDATE,
    }
)
"""What the stream's actions mean to us. Not listed, as they touch nothing: noop, read, open, renew, close."""

IMPORTED = "imported"
"""The note of what is taken in as it is."""

_NOTES = MappingProxyType(
    {"remove": "forgotten, not destroyed", "forget": "forgotten, not destroyed", "move": "moved", "import": IMPORTED}
)


@dataclass(frozen=True, slots=True)
class Message:
    """One line of the stream; a line that is no JSON object has the type `text`."""

    type: str
    text: str
    level: str = "info"
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A diagnostic in the tool's own words. `file` is as the tool names it; `line` is 0 where there is none."""

    severity: str
    summary: str
    detail: str = ""
    address: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    code: str = field(default="", repr=False)
    context: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """What happens, or happened, to one resource. `state` is planned, drifted, started, done or failed."""

    address: str
    action: Action
    state: str
    note: str = ""


class Cutter:
    """Cuts output that comes at arbitrary split points into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from _messages(line)

    def finish(self) -> Iterator[Message]:
        """What is left when the output ended within a line."""
        line, self._rest = self._rest, b""
        yield from _messages(line)


def protocol_of(message: Message) -> str:
    """The protocol's version when `message` tells it (the first one does), otherwise nothing."""
    return str(message.body.get("ui", "")) if message.type == "version" else ""


def understood(protocol: str) -> bool:
    """Whether we can read that version of the protocol."""
    return protocol.partition(".")[0] == str(PROTOCOL_MAJOR)


def diagnosis_of(message: Message) -> Diagnosis | None:
    """The diagnostic that `message` carries."""
    body = message.body.get("diagnostic")
    if not isinstance(body, Mapping):
        return None
    place = body.get("range") or _NOTHING
    start = place.get("start") or _NOTHING
    snippet = body.get("snippet") or _NOTHING
    return Diagnosis(
        severity=str(body.get("severity", message.level)),
        summary=str(body.get("summary", "")),
        detail=str(body.get("detail", "")),
        address=str(body.get("address", "")),
        file=str(place.get("filename", "")),
        line=int(start.get("line", 0)),
        column=int(start.get("column", 0)),
        code=str(snippet.get("code") or "").split("\n", 1)[0],
        context=str(snippet.get("context") or ""),
    )


def planned_of(message: Message) -> Moved | None:
    """The planned change or the drift of a resource that `message` tells; None for what touches nothing."""
    if message.type not in ("planned_change", "resource_drift"):
        return None
    change = message.body.get("change") or _NOTHING
    word = str(change.get("action", ""))
    if word == "noop" and change.get("importing"):
        word = "import"
    if word not in ACTIONS:
        return None
    note = _NOTES.get(word, "")
    reason = str(change.get("reason", "")).replace("_", " ")
    state = "planned" if message.type == "planned_change" else "drifted"
    return Moved(_address(change), ACTIONS[word], state, note or reason)


def progress_of(message: Message) -> Moved | None:
    """The step of a resource during an apply; reading data sources is none."""
    states = {"apply_start": "started", "apply_complete": "done", "apply_errored": "failed"}
    hook = message.body.get("hook") or _NOTHING
    word = str(hook.get("action", ""))
    if message.type not in states or word not in ACTIONS:
        return None
    identity = f"{hook['id_key']}={hook['id_value']}" if hook.get("id_key") and hook.get("id_value") else ""
    return Moved(_address(hook), ACTIONS[word], states[message.type], identity)


def dumped_state(message: Message) -> bytes:
    """The state that a tool tells when it can save it nowhere, not even in a file (secrets in clear); else nothing."""
    state = message.body.get("state") if message.text == "Emergency state dump" else None
    return json.dumps(state, indent=2).encode() if isinstance(state, Mapping) else b""


def changed_outputs(message: Message) -> tuple[str, ...]:
    """The outputs that a plan would change."""
    if message.type != "outputs":
        return ()
    outputs = message.body.get("outputs") or _NOTHING
    return tuple(sorted(name for name, output in outputs.items() if output.get("action", "noop") != "noop"))


def _address(body: Mapping[str, Any]) -> str:
    return str((body.get("resource") or _NOTHING).get("addr", ""))


def _messages(line: bytes) -> Iterator[Message]:
    text = line.decode(errors="replace").rstrip("\r")
    if not text.strip():
        return
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "@message" not in body:
        yield Message("text", text)
        return
    yield Message(str(body.get("type", "")), str(body["@message"]), str(body.get("@level", "info")), body)
