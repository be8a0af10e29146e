"""The event stream of the `ansible.posix.jsonl` callback (pure): lines in, typed events and a recap out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

_RESULTS: Mapping[str, str] = MappingProxyType(
    {
        "v2_runner_on_ok": "ok",
        "v2_runner_on_failed": "failed",
        "v2_runner_on_unreachable": "unreachable",
        "v2_runner_on_skipped": "skipped",
    }
)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task did on one host. `state` is ok, changed, failed, ignored, unreachable or skipped."""

    host: str
    task: str
    state: str
    message: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Recap:
    """What the run came to: per host counts, and the statistics set by `set_stats`."""

    hosts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)
    host_stats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def having(self, count: str) -> tuple[str, ...]:
        """Hosts for which `count` (changed, failures, unreachable …) is not zero."""
        return tuple(sorted(name for name, numbers in self.hosts.items() if numbers.get(count)))

    def outputs(self) -> dict[str, Any]:
        """`set_stats` as outputs; those set per host come as one map per name, from host to value."""
        found: dict[str, Any] = dict(self.stats)
        for host, values in self.host_stats.items():
            for name, value in values.items():
                per_host = found.setdefault(name, {})
                if isinstance(per_host, dict):
                    per_host[host] = value
        return found


@dataclass(frozen=True, slots=True)
class Started:
    """A play or a task began."""

    name: str


Told = TaskResult | Recap | Started | str
"""What a line told; a plain text is what Ansible printed beside the stream (warnings, early errors)."""


def parse_line(line: str) -> Told | None:
    """What one line of output tells; None for nothing worth telling."""
    text = line.strip()
    if not text:
        return None
    try:
        event = json.loads(text)
    except ValueError:
        return text
    if not isinstance(event, dict) or "_event" not in event:
        return text
    kind = event["_event"]
    if kind in _RESULTS:
        return _result(event, _RESULTS[kind])
    if kind == "v2_playbook_on_stats":
        return Recap(event.get("stats", {}), event.get("global_custom_stats", {}), event.get("custom_stats", {}))
    if kind in ("v2_playbook_on_task_start", "v2_playbook_on_handler_task_start"):
        return Started(str(event.get("task", {}).get("name", "")))
    return None


def _result(event: Mapping[str, Any], state: str) -> TaskResult | None:
    for host, result in event.get("hosts", {}).items():
        if state == "ok" and result.get("changed"):
            state = "changed"
        if state == "failed" and result.get("ignore_errors"):
            state = "ignored"
        task = event.get("task", {})
        return TaskResult(host, str(task.get("name", "")), state, _message(result, state), str(task.get("path", "")))
    return None


def _message(result: Mapping[str, Any], state: str) -> str:
    if state not in ("failed", "unreachable", "ignored"):
        return ""
    if result.get("_ansible_no_log"):
        return "hidden by no_log"
    parts = [str(result.get("msg", ""))]
    for name in ("stderr", "module_stderr", "stdout", "module_stdout"):
        if str(result.get(name, "")).strip():
            parts.append(f"{name}: {str(result[name]).strip()}")
            break
    for item in result.get("results", ()):
        if isinstance(item, dict) and item.get("failed"):
            parts.append(str(item.get("msg", "")))
    return "\n".join(part for part in parts if part)


class LineSplitter:
    """Makes whole lines of chunks that end anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def flush(self) -> list[str]:
        """The unfinished last line, if any."""
        rest, self._rest = self._rest, b""
        return [rest.decode(errors="replace")] if rest else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rest = b""
