"""What the scripts print, read into values: pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from skyspan.providers.netlab.facts import parse_facts
from skyspan.providers.netlab.memory import Made

_TEST = re.compile(r"^\[(?P<label>[A-Za-z0-9_.-]+)\]\s*(?P<text>.*)$")
_NODES = re.compile(r"\s*\[ node\(s\): (?P<nodes>[^\]]*?) ?\]$")
_VERDICTS: Mapping[str, str] = MappingProxyType(
    {"PASS": "passed", "FAIL": "failed", "WARNING": "warning", "SKIPPED": "skipped"}
)
_REMARKS = frozenset(("INFO", "WAITING", "MORE", "SUCCESS", *_VERDICTS))


@dataclass(frozen=True, slots=True)
class Other:
    """Another lab of ours on the host, whose owner is another stage."""

    number: int
    name: str
    management: str
    owner: str


@dataclass(frozen=True, slots=True)
class Survey:
    """A look at the stage's folder on the host. `snapshot` is a digest of netlab's file there, `links` the host's
    interfaces, `missing` the tools that are not there."""

    missing: tuple[str, ...] = ()
    version: str = ""
    owner: str = ""
    shipped: str = ""
    locked: bool = False
    snapshot: str = ""
    others: tuple[Other, ...] = ()
    links: frozenset[str] = frozenset()


def sections(text: str) -> Mapping[str, str]:
    """The parts of a look by name: each begins with a line `@name`."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"@[a-z]+", line):
            lines = found.setdefault(line[1:], [])
        else:
            lines.append(line)
    return {name: "\n".join(content).strip("\n") for name, content in found.items()}


def parse_survey(text: str) -> Survey:
    """What LOOK printed; raises ValueError or KeyError for what it cannot have."""
    parts = sections(text)
    marks = dict(line.split(" ", 1) for line in parts["marks"].splitlines())
    others = []
    for line in parts["others"].splitlines():
        number, name, management, owner = line.split(" ", 3)
        others.append(Other(int(number or 0), name, "" if management == "-" else management, owner))
    return Survey(
        missing=tuple(line[3:] for line in parts["tools"].splitlines() if line.startswith("no ")),
        version=parts["version"].strip(),
        owner=parts["owner"].strip(),
        shipped=parts["shipped"].strip(),
        locked="lock" in marks,
        snapshot=marks.get("netlab.snapshot.pickle", ""),
        others=tuple(others),
        links=frozenset(parts["links"].split()),
    )


def parse_made(text: str) -> Made:
    """What TRIAL and CREATE printed; raises ToolFailedError and KeyError for what they cannot have."""
    parts = sections(text)
    return Made(parse_facts(parts["facts"]), parts.get("clab", ""), _configs(parts.get("files", "")))


def _configs(text: str) -> dict[str, str]:
    """A digest per node of its files, `node_files/NODE/…`; those that all share are under an empty name."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        digest, _, path = line.partition("  ")
        parts = path.split("/")
        found.setdefault(parts[1] if len(parts) > 2 else "", []).append(f"{digest} {path}")
    return {
        node: hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest() for node, lines in found.items()
    }


@dataclass(slots=True)
class _Test:
    name: str
    description: str
    nodes: list[str]
    result: str = "passed"
    messages: list[str] = field(default_factory=list)


def parse_validation(text: str, result: str, known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `netlab validate` printed, as a report: its result in one word and every test with its own. `known` are the
    topology's tests: only their names begin a test, whatever else stands in brackets."""
    names = {str(test.get("name", "")) for test in known}
    tests: list[_Test] = []
    for line in text.splitlines():
        found = _TEST.match(line.rstrip())
        if found is None:
            if tests and line.strip() and tests[-1].messages:
                tests[-1].messages[-1] += f"\n{line.strip()}"
            continue
        label, words = found["label"], found["text"].strip()
        if label in names and label not in _REMARKS:
            nodes = _NODES.search(words)
            described = _NODES.sub("", words)
            tests.append(_Test(label, described, nodes["nodes"].split(",") if nodes else []))
        elif tests and label in _VERDICTS and not re.match(r"(One test|\d+ tests) ", words):
            _judge(tests[-1], _VERDICTS[label], words)
    return {
        "result": result,
        "tests": [
            {
                "name": test.name,
                "description": test.description,
                "nodes": test.nodes,
                "result": test.result,
                "messages": test.messages,
            }
            for test in tests
        ],
    }


_WORST = ("passed", "skipped", "warning", "failed")


def _judge(test: _Test, verdict: str, words: str) -> None:
    if verdict != "passed" and words:
        test.messages.append(words)
    test.result = max(test.result, verdict, key=_WORST.index)
