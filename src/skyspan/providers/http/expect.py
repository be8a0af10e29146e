"""What an answer must look like, and what is picked from it: pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, field_validator

from skyspan.contracts.provider import Spec
from skyspan.model.error import OutputError
from skyspan.model.secret import Secret
from skyspan.model.value import Value, masked, revealed

_CLASS = re.compile(r"^[1-5]xx$")
_RANGE = re.compile(r"^([1-5]\d\d)(?:-([1-5]\d\d))?$")

_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: header names in lower case, `url` where it came from, `cut` when the body was too long."""

    status: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    url: str = ""
    cut: bool = False

    def text(self) -> str:
        """The body as text, undecodable bytes replaced."""
        return self.body.decode(errors="replace")

    def opening(self) -> str:
        """The first part of the body, in one line, for messages."""
        text = " ".join(self.text()[: _SHOWN * 4].split())
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _status(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _statuses(value: Any) -> Any:
    return (value,) if isinstance(value, int | str) else value


StatusPattern: TypeAlias = Annotated[str, BeforeValidator(_status)]


class Expectation(Spec):
    """What an answer must look like; everything given must hold."""

    status: Annotated[tuple[StatusPattern, ...], BeforeValidator(_statuses), Field(min_length=1)] = ("2xx",)
    """Accepted statuses: a number, a class (`2xx`) or a range (`200-204`), or a list of these."""
    json_: dict[str, Value] = Field(default_factory=dict, alias="json")
    """Values that must stand in the JSON answer, by JSON pointer (`/data/0/id`) or dotted path (`data.0.id`)."""
    contains: str | Secret | None = None
    """A text that must stand in the body."""

    @field_validator("status")
    @classmethod
    def _known_statuses(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not (_CLASS.match(pattern) or _RANGE.match(pattern)):
                msg = f"{pattern!r} is no HTTP status: write 200, 2xx or 200-204"
                raise ValueError(msg)
        return patterns

    def accepts(self, status: int) -> bool:
        """Whether `status` is one of those wanted."""
        return any(_matches(pattern, status) for pattern in self.status)


def _as_expectation(value: Any) -> Any:
    return {"status": value} if isinstance(value, int | str | list | tuple) and not isinstance(value, bool) else value


Expect: TypeAlias = Annotated[Expectation, BeforeValidator(_as_expectation)]
"""An expectation; a number, class or list alone means the status."""


def _matches(pattern: str, status: int) -> bool:
    if _CLASS.match(pattern):
        return status // 100 == int(pattern[0])
    found = _RANGE.match(pattern)
    return found is not None and int(found[1]) <= status <= int(found[2] or found[1])


def mismatches(expected: Expectation, answer: Answer) -> tuple[str, ...]:
    """How `answer` differs from what is expected, in words; empty when it does not. Secrets are not shown."""
    if not expected.accepts(answer.status):
        wanted = ", ".join(expected.status)
        return (f"status {answer.status} {answer.reason}".rstrip() + f", expected {wanted}",)
    wrong: list[str] = []
    if expected.contains is not None:
        text = expected.contains if isinstance(expected.contains, str) else expected.contains.reveal()
        if text not in answer.text():
            wrong.append(f"the body does not contain {json.dumps(masked(expected.contains))}")
    if expected.json_:
        wrong += _json_mismatches(expected.json_, answer)
    return tuple(wrong)


def _json_mismatches(expected: Mapping[str, Value], answer: Answer) -> list[str]:
    try:
        document = document_of(answer)
    except OutputError as error:
        return [error.summary]
    wrong: list[str] = []
    for path, value in expected.items():
        try:
            found = pick(document, path)
        except OutputError as error:
            wrong.append(error.summary)
            continue
        if found != revealed(value):
            wrong.append(f"{path} is not {json.dumps(masked(value), ensure_ascii=False)}")
    return wrong


def document_of(answer: Answer) -> Any:
    """The answer's JSON document; raises OutputError when it is none."""
    if answer.cut:
        raise OutputError("the answer is too long to be read as JSON")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise OutputError("the answer is not JSON", detail=str(error)) from error


def pick(document: Any, path: str) -> Any:
    """The value at a JSON pointer (RFC 6901) or a dotted path; raises OutputError saying what is there instead."""
    here = document
    for step in _steps(path):
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            raise OutputError(f"the answer has no {path!r}: at {step!r} there is {_kind(here)}")
    return here


def _steps(path: str) -> list[str]:
    if path.startswith("/"):
        return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
    dotted = path.removeprefix("$").removeprefix(".")
    return dotted.split(".") if dotted else []


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        names = sorted(str(name) for name in value)
        return f"an object with {', '.join(names[:8]) or 'nothing in it'}{', …' if len(names) > 8 else ''}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing below"
