"""The messages that `swanctl --raw` prints, read into values: pure (format: libvici's vici_dump, one line each)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias, Union

Value: TypeAlias = Union[str, tuple[str, ...], "Section"]
Section: TypeAlias = Mapping[str, Value]

_SECTION = re.compile(r"([^\s={}]+) \{")
_LIST = re.compile(r"([^\s={}]+)=\[([^\]]*)\]")
_TEXT = re.compile(r"([^\s={}]+)=(.*?)(?=\s[^\s={}]+=|\s[^\s={}]+ \{|\}|$)")


def parse_message(line: str) -> Section:
    """The content of `NAME event {…}`; raises ValueError for what is none."""
    start = line.find("{")
    if start < 0:
        msg = f"no message of swanctl: {line[:80]!r}"
        raise ValueError(msg)
    root: dict[str, Value] = {}
    open_sections = [root]
    at = start + 1
    while at < len(line) and open_sections:
        if line[at] == " ":
            at += 1
        elif line[at] == "}":
            open_sections.pop()
            at += 1
        else:
            at = _item(line, at, open_sections)
    if open_sections:
        msg = f"a message of swanctl is cut off: …{line[-80:]!r}"
        raise ValueError(msg)
    return root


def _item(line: str, at: int, open_sections: list[dict[str, Value]]) -> int:
    found = _SECTION.match(line, at)
    if found:
        inner: dict[str, Value] = {}
        open_sections[-1][found[1]] = inner
        open_sections.append(inner)
        return found.end()
    found = _LIST.match(line, at)
    if found:
        open_sections[-1][found[1]] = tuple(found[2].split())
        return found.end()
    found = _TEXT.match(line, at)
    if found is None:
        msg = f"what is {line[at : at + 40]!r} in a message of swanctl?"
        raise ValueError(msg)
    open_sections[-1][found[1]] = found[2]
    return found.end()


def text_of(section: Section, name: str) -> str:
    """A text value; empty when there is none."""
    value = section.get(name, "")
    return value if isinstance(value, str) else ""


def list_of(section: Section, name: str) -> tuple[str, ...]:
    """A list value; empty when there is none."""
    value = section.get(name, ())
    return value if isinstance(value, tuple) else ()


def sections_of(section: Section) -> Mapping[str, Section]:
    """The sections inside a section, by name."""
    return {name: value for name, value in section.items() if isinstance(value, Mapping)}
