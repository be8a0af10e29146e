"""YAML text to plain data that remembers where everything stands; strict about what a composition may use of YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml

from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.expression import Loc
from skyspan.model.syntax import OPEN
from skyspan.model.value import Value
from skyspan.planning.source import dotted

MAX_NODES = 200_000
MAX_DEPTH = 64

_PLAIN = "plain"
_TEXT = "tag:yaml.org,2002:str"
_ALLOWED_TAGS = frozenset({_PLAIN, _TEXT, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})

# YAML 1.2, section 10.3.2 "Core schema: tag resolution".
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS = MappingProxyType(
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
)
_MAYBE_NUMBER = frozenset("+-.0123456789")
_MAX_DIGITS = 300
_MAX_EXCERPT = 240


class _TooDeep(Exception):
    """The text is nested deeper than anybody writes."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.node = node


class _Implicit:
    """What a YAML parser asks a resolver.

    Leaves every untagged node to us, as YAML 1.1 would read `on`, `no` and 1:30 as something else than text; and counts
    how deep the parser is, as libyaml's would overflow the C stack on a million brackets.
    """

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: object, implicit: object) -> str:
        quoted = kind is yaml.ScalarNode and isinstance(implicit, tuple) and not implicit[0]
        return _TEXT if quoted else _PLAIN

    def descend_resolver(self, parent: Any, index: object) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeep(parent)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def check_resolver_prefix(self, *_: object) -> bool:
        return False


def _loader() -> Callable[[str], Any]:
    """The parser of libyaml where PyYAML was built with it (five times as fast), else PyYAML's own."""
    try:
        from yaml._yaml import CParser
    except ImportError:
        from yaml.composer import Composer
        from yaml.parser import Parser
        from yaml.reader import Reader
        from yaml.scanner import Scanner

        class Pure(_Implicit, Reader, Scanner, Parser, Composer):
            def __init__(self, stream: str) -> None:
                Reader.__init__(self, stream)
                Scanner.__init__(self)
                Parser.__init__(self)
                Composer.__init__(self)

        return Pure

    class Fast(_Implicit, CParser):
        pass

    return Fast


@dataclass(frozen=True, slots=True)
class YamlSource:
    """A parsed file: its text and where each part of it stands (see `planning.source.Source`)."""

    name: str
    text: str
    lines: tuple[str, ...]
    root: Any

    def key(self, loc: Loc) -> Position:
        key, value = self._find(loc)
        return self.place(key if key is not None else value)

    def value(self, loc: Loc) -> Position:
        return self.place(self._find(loc)[1])

    def within(self, loc: Loc, text: str, offset: int) -> Position:
        node = self._find(loc)[1]
        if not isinstance(node, yaml.ScalarNode) or node.value != text:
            return self.place(node)
        # Quotes, escapes and folding move characters, so count from the opening of the expression it stands in.
        opening = text.rfind(OPEN, 0, offset + len(OPEN))
        if opening < 0:
            return self.place(node)
        place = node.start_mark.index
        for _ in range(text.count(OPEN, 0, opening) + 1):
            place = self.text.find(OPEN, place, node.end_mark.index) + 1
            if not place:
                return self.place(node)
        place += offset - opening - 1
        line_start = self.text.rfind("\n", 0, place) + 1
        return Position(self.name, self.text.count("\n", 0, place) + 1, place - line_start + 1)

    def excerpt(self, where: Position) -> str:
        line = self.lines[where.line - 1] if 0 < where.line <= len(self.lines) else ""
        return line if len(line) <= _MAX_EXCERPT else ""

    def place(self, node: Any) -> Position:
        """Where a YAML node begins."""
        if node is None:
            return Position(self.name)
        return Position(self.name, node.start_mark.line + 1, node.start_mark.column + 1)

    def _find(self, loc: Loc) -> tuple[Any, Any]:
        """The key's node (None in lists) and the value's at `loc`, or those of the nearest that holds it."""
        key, value = None, self.root
        for step in loc:
            found = _child(value, step)
            if found is None:
                break
            key, value = found
        return key, value


def _child(node: Any, step: str | int) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def parse_yaml(text: str, name: str) -> tuple[Value, YamlSource, tuple[Diagnostic, ...]]:
    """The data, its source, and every finding; after a syntax error the data is None."""
    lines = tuple(line.rstrip("\r") for line in text.split("\n"))
    nothing = YamlSource(name, text, lines, None)
    try:
        loader = _loader()(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        return None, nothing, (_syntax_error(error, nothing),)
    except yaml.reader.ReaderError as error:
        return None, nothing, (_character_error(error, nothing),)
    except _TooDeep as deep:
        return None, nothing, (_too_deep(nothing, nothing.place(deep.node)),)
    source = YamlSource(name, text, lines, root)
    if root is None:
        return None, source, ()
    builder = _Builder(source)
    data = builder.build(root, (), 0)
    return data, source, tuple(builder.findings)


def _syntax_error(error: yaml.MarkedYAMLError, source: YamlSource) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    where = Position(source.name, mark.line + 1, mark.column + 1) if mark else Position(source.name)
    problem = (error.problem or error.context or "cannot be read").removeprefix("but ")
    detail = ""
    if error.context and error.context_mark and error.problem:
        detail = f"{error.context} that began in line {error.context_mark.line + 1}"
    hint = ""
    if "\t" in source.excerpt(where)[: where.column] or "\\t" in problem:
        hint = "YAML is indented with spaces; a tab cannot begin anything"
    elif "expected a single document" in (error.context or ""):
        hint = "one file holds one composition: remove the `---` and what follows"
    elif "expected <block end>" in problem or "could not find expected ':'" in problem:
        hint = "check the indentation of this line and the one above"
    elif "mapping values are not allowed" in problem or "that cannot start any token" in problem:
        hint = "put quotes around a text that holds `: ` or begins with a special character"
    return Diagnostic(
        "yaml-syntax", f"not valid YAML: {problem}", where, detail=detail, hint=hint, excerpt=source.excerpt(where)
    )


def _character_error(error: Any, source: YamlSource) -> Diagnostic:
    place = error.position if isinstance(error.position, int) and error.position >= 0 else 0
    # libyaml counts bytes, PyYAML's own reader characters.
    before = (
        source.text.encode()[:place].decode(errors="ignore") if isinstance(error.name, str) else source.text[:place]
    )
    forbidden = next((index for index, char in enumerate(source.text) if _is_control(char)), len(before))
    line = source.text.count("\n", 0, forbidden) + 1
    where = Position(source.name, line, forbidden - source.text.rfind("\n", 0, forbidden))
    return Diagnostic(
        "yaml-syntax", "not valid YAML: a control character", where, hint="remove it; the file must be text"
    )


def _is_control(char: str) -> bool:
    return (char < " " and char not in "\t\n\r") or ("\x7f" <= char <= "\x9f" and char != "\x85")


def _too_deep(source: YamlSource, where: Position) -> Diagnostic:
    summary = f"nested deeper than {MAX_DEPTH} levels"
    return Diagnostic("too-large", summary, where, excerpt=source.excerpt(where))


class _Abandoned(Exception):
    """Building goes no further."""


class _Builder:
    """Builds the data of one document, counting what aliases multiply."""

    def __init__(self, source: YamlSource) -> None:
        self.findings: list[Diagnostic] = []
        self._source = source
        self._left = MAX_NODES
        self._open: set[int] = set()

    def build(self, node: Any, loc: Loc, depth: int) -> Value:
        try:
            return self._value(node, loc, depth)
        except _Abandoned:
            return None

    def _value(self, node: Any, loc: Loc, depth: int) -> Value:
        self._left -= 1
        if self._left < 0:
            hint = "aliases (*name) multiply what they stand for; write less, or split the composition"
            self._report(node, "too-large", f"more than {MAX_NODES} values once aliases are expanded", hint)
            raise _Abandoned
        if depth > MAX_DEPTH:
            self.findings.append(_too_deep(self._source, self._source.place(node)))
            raise _Abandoned
        if node.tag not in _ALLOWED_TAGS:
            self._report(
                node,
                "yaml-tag",
                f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not used here",
                "remove it",
            )
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self._report(node, "yaml-alias", "an alias stands inside what it stands for", "write the value out")
            raise _Abandoned
        self._open.add(id(node))
        built = self._list(node, loc, depth) if isinstance(node, yaml.SequenceNode) else self._mapping(node, loc, depth)
        self._open.discard(id(node))
        return built

    def _list(self, node: Any, loc: Loc, depth: int) -> list[Value]:
        return [self._value(item, (*loc, place), depth + 1) for place, item in enumerate(node.value)]

    def _mapping(self, node: Any, loc: Loc, depth: int) -> dict[str, Value]:
        built: dict[str, Value] = {}
        first: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                continue
            if key in first:
                self._duplicate(key, first[key], key_node, loc)
                continue
            first[key] = key_node
            built[key] = self._value(value_node, (*loc, key), depth + 1)
        return built

    def _key(self, node: Any) -> str | None:
        """A key is a text as written: `1:` and `on:` are the texts `1` and `on`."""
        if not isinstance(node, yaml.ScalarNode):
            self._report(node, "invalid-key", "a key must be a text", "put quotes around it if it holds { or [")
            return None
        if node.value == "<<" and node.tag == _PLAIN:
            hint = "YAML 1.2 has no merge keys; name the whole value with an anchor, or repeat the settings"
            self._report(node, "unknown-key", "unknown key '<<'", hint)
            return None
        if OPEN in node.value:
            self._report(node, "invalid-key", "an expression cannot be a key", "only values may hold ${{ … }}")
        return str(node.value)

    def _duplicate(self, key: str, first: Any, again: Any, loc: Loc) -> None:
        what = {"stages": "stage", "hosts": "host", "inputs": "input"}.get(str(loc[0])) if len(loc) == 1 else None
        where = f" in {dotted(loc)}" if loc and what is None else ""
        summary = f"duplicate {what or 'key'} {key!r}{where}"
        self._report(
            again, f"duplicate-{what or 'key'}", summary, f"first given at {self._source.place(first)}; keep one"
        )

    def _scalar(self, node: Any) -> Value:
        text: str = node.value
        if node.tag != _PLAIN:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in _MAYBE_NUMBER:
            return text
        if len(text) > _MAX_DIGITS and (_INT.match(text) or _FLOAT.match(text) or _HEX.match(text)):
            self._report(
                node, "invalid-value", f"a number of more than {_MAX_DIGITS} digits", "put quotes around a text"
            )
            return None
        if text.lstrip("+-") in (".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"):
            self._report(node, "invalid-value", f"{text} is no number that can be used", "put quotes around a text")
            return None
        return _number(text)

    def _report(self, node: Any, code: str, summary: str, hint: str) -> None:
        where = self._source.place(node)
        self.findings.append(Diagnostic(code, summary, where, hint=hint, excerpt=self._source.excerpt(where)))


def _number(text: str) -> Value:
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    return int(text, 16) if _HEX.match(text) else text
