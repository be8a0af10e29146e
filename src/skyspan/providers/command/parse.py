"""What a command wrote to its output file, as outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from skyspan.model.error import OutputError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue
from skyspan.providers.command.spec import OUTPUT_VARIABLE
from skyspan.providers.masking import holds_secret

LIMIT = 1024 * 1024
"""The most that an output file may hold, in bytes."""

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,127}$")

_EXPECTED = "append lines of the form name=value, or JSON objects of one line each, or write one JSON object"


def parse_outputs(data: bytes, secrets: Iterable[Secret] = ()) -> dict[str, OutputValue]:
    """The outputs in `data`: one JSON object, or lines that are each `name=value` (a text) or a JSON object.

    Of a name that comes twice the last value counts. A value that shows one of `secrets` is sensitive.
    Raises OutputError naming the line that is neither; the line itself is not quoted, as it may be sensitive.
    """
    if not data:
        return {}
    if len(data) > LIMIT:
        raise OutputError(f"the command wrote more than {LIMIT // 1024} KiB to ${OUTPUT_VARIABLE}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise OutputError(f"what the command wrote to ${OUTPUT_VARIABLE} is not UTF-8", detail=str(error)) from error
    known = tuple(secrets)
    return {name: OutputValue(value, _sensitive(value, known)) for name, value in _pairs(text).items()}


def _pairs(text: str) -> dict[str, Any]:
    whole = _object(text) if text.lstrip().startswith("{") else None
    if whole is not None:
        return _named(whole, "")
    found: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = _object(line) if line.lstrip().startswith("{") else None
        if fields is None:
            name, equals, value = line.partition("=")
            if not equals:
                raise OutputError(
                    f"line {number} of ${OUTPUT_VARIABLE} is neither name=value nor a JSON object", hint=_EXPECTED
                )
            fields = {name.strip(): value}
        found.update(_named(fields, f"line {number} of "))
    return found


def _named(fields: dict[str, Any], where: str) -> dict[str, Any]:
    for name in fields:
        if not _NAME.match(name):
            raise OutputError(
                f"{where}${OUTPUT_VARIABLE} has an output whose name is not made of letters, digits, _ and -",
                hint=_EXPECTED,
            )
    return fields


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _sensitive(value: Any, secrets: tuple[Secret, ...]) -> bool:
    if not secrets:
        return False
    return holds_secret(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), secrets)
