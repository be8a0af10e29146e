"""How expressions are written: from text to `Template`, by recursive descent; nothing is ever executed here."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from skyspan.model.function import DEFAULT_USAGE, FUNCTIONS
from skyspan.model.syntax import (
    CLOSE,
    ESCAPED_OPEN,
    OPEN,
    Call,
    ExpressionError,
    Literal,
    Node,
    Operation,
    Read,
    Reference,
    Template,
)
from skyspan.model.value import Value

_MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<close>}})
  | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_-]*)
  | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<mark>&&|\|\||==|!=|<=|>=|[<>!().,\[\]])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_WORDS = (("true", True), ("false", False), ("null", None))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    offset: int


def parse_template(text: str) -> Template:
    """`text` as literal pieces and expressions; raises ExpressionError with the offset of what is wrong."""
    parts: list[str | Node] = []
    literal, place = "", 0
    while True:
        start = text.find(OPEN, place)
        if start < 0:
            break
        if start > 0 and text.startswith(ESCAPED_OPEN, start - 1) and start - 1 >= place:
            literal += text[place : start - 1] + OPEN
            place = start + len(OPEN)
            continue
        literal += text[place:start]
        if literal:
            parts.append(literal)
            literal = ""
        tokens, place = _tokens(text, start)
        parts.append(_Parser(tokens).whole())
    literal += text[place:]
    if literal or not parts:
        parts.append(literal)
    return Template(tuple(parts))


def _tokens(text: str, start: int) -> tuple[list[_Token], int]:
    """The tokens of the expression that opens at `start`, and where the text goes on behind it."""
    tokens: list[_Token] = []
    place = start + len(OPEN)
    while True:
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip()
            if not rest or CLOSE not in rest or rest.startswith(OPEN):
                msg = f"unterminated expression: {OPEN} without {CLOSE}"
                raise ExpressionError(msg, start)
            offset = len(text) - len(rest)
            what = "a text without its closing quote" if rest[0] in "'\"" else f"unexpected {rest[0]!r}"
            raise ExpressionError(f"{what} in an expression", offset)
        place = match.end()
        kind = match.lastgroup or ""
        token = _Token(kind, match[kind], match.start(kind))
        tokens.append(token)
        if kind == "close":
            return tokens, place


class _Parser:
    """Reads one expression's tokens, the last of which closes it."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    def whole(self) -> Node:
        if self._next.kind == "close":
            msg = "empty expression"
            raise ExpressionError(msg, self._next.offset)
        node = self._either()
        if self._next.kind != "close":
            self._unexpected("an operator or }}")
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "close":
            self._place += 1
        return token

    def _accept(self, *marks: str) -> _Token | None:
        return self._take() if self._next.kind == "mark" and self._next.text in marks else None

    def _expect(self, mark: str) -> None:
        if self._accept(mark) is None:
            self._unexpected(repr(mark))

    def _unexpected(self, expected: str) -> None:
        token = self._next
        found = "the end of the expression" if token.kind == "close" else repr(token.text)
        msg = f"expected {expected}, found {found}"
        raise ExpressionError(msg, token.offset)

    def _either(self) -> Node:
        node = self._both()
        while token := self._accept("||"):
            node = Operation("||", (node, self._both()), token.offset)
        return node

    def _both(self) -> Node:
        node = self._comparison()
        while token := self._accept("&&"):
            node = Operation("&&", (node, self._comparison()), token.offset)
        return node

    def _comparison(self) -> Node:
        node = self._negation()
        if token := self._accept("==", "!=", "<=", ">=", "<", ">"):
            node = Operation(token.text, (node, self._negation()), token.offset)
        return node

    def _negation(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            msg = f"expression nested deeper than {_MAX_DEPTH}"
            raise ExpressionError(msg, self._next.offset)
        token = self._accept("!")
        node = Operation("!", (self._negation(),), token.offset) if token else self._operand()
        self._depth -= 1
        return node

    def _operand(self) -> Node:
        if self._accept("("):
            node = self._either()
            self._expect(")")
            return node
        token = self._next
        if token.kind == "number":
            return Literal(_number(self._take()))
        if token.kind == "string":
            return Literal(_unquote(self._take().text))
        if token.kind != "name":
            self._unexpected("a reference, a function or a value")
        self._take()
        for word, value in _WORDS:
            if token.text == word:
                return Literal(value)
        if self._accept("("):
            return self._call(token)
        return Read(Reference(token.text, self._path()), token.offset)

    def _path(self) -> tuple[str | int, ...]:
        steps: list[str | int] = []
        while token := self._accept(".", "["):
            step = self._take()
            if token.text == ".":
                if step.kind != "name":
                    self._place -= step.kind != "close"
                    self._unexpected("a name after '.'")
                steps.append(step.text)
            else:
                if step.kind == "string":
                    steps.append(_unquote(step.text))
                elif step.kind == "number" and step.text.isdigit():
                    steps.append(_whole(step))
                else:
                    self._place -= step.kind != "close"
                    self._unexpected("an index or a quoted name")
                self._expect("]")
        return tuple(steps)

    def _call(self, name: _Token) -> Node:
        arguments: list[Node] = []
        if not self._accept(")"):
            arguments.append(self._either())
            while self._accept(","):
                arguments.append(self._either())
            self._expect(")")
        _check_call(name, len(arguments))
        return Call(name.text, tuple(arguments), name.offset)


def _check_call(name: _Token, count: int) -> None:
    if name.text == "default":
        usage, fine = DEFAULT_USAGE, count == 2
    elif name.text in FUNCTIONS:
        function = FUNCTIONS[name.text]
        usage, fine = function.usage, function.least <= count <= function.most
    else:
        known = (*FUNCTIONS, "default")
        near = difflib.get_close_matches(name.text, known, 1)
        remedy = f"did you mean {near[0]}()?" if near else f"there are {', '.join(sorted(known))}"
        raise ExpressionError(f"unknown function {name.text}(): {remedy}", name.offset)
    if not fine:
        raise ExpressionError(f"{name.text}() takes other arguments: {usage}", name.offset)


def _number(token: _Token) -> Value:
    return _whole(token) if token.text.lstrip("-").isdigit() else float(token.text)


def _whole(token: _Token) -> int:
    if len(token.text) > 30:
        msg = "a number of more than 30 digits"
        raise ExpressionError(msg, token.offset)
    return int(token.text)


def _unquote(text: str) -> str:
    return _ESCAPE.sub(lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text[1:-1])
