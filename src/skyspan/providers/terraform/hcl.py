"""Finds in configuration files what decides where state lives, when to init and what else has to be copied. Pure.

No evaluation, no full grammar: a tokenizer that knows strings, heredocs and comments, and the nesting of blocks. The
tool itself reports what is wrong with a file; this reads on as well as it can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skyspan.model.value import leaves

_SPACE = re.compile(r"[ \t\r]+|#[^\n]*|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|[0-9][0-9A-Za-z.]*")
_HEREDOC = re.compile(r"<<-?\s*([A-Za-z_][A-Za-z0-9_-]*)[ \t\r]*\n")
_UPWARD = re.compile(r"^(?:\$\{path\.(module|root)\}/)?((?:\./)*\.\./[^$%]*)")


@dataclass(frozen=True, slots=True)
class Upward:
    """A path that leaves the folder of its file by `../`. `required` when it is a module's source."""

    path: str
    required: bool = False
    from_root: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file says. `backend` is the kind of its backend block (`cloud` for a cloud block), or nothing.

    `needs` are the parts that decide what init has to install. `providers` are the local names of all providers that
    the file uses in some way, `configurations` the provider blocks (local name and alias), `variables` the inputs.
    """

    backend: str = ""
    encrypted: bool = False
    needs: frozenset[str] = frozenset()
    upward: frozenset[Upward] = frozenset()
    providers: frozenset[str] = frozenset()
    configurations: frozenset[tuple[str, str]] = frozenset()
    variables: frozenset[str] = frozenset()

    def __or__(self, other: Facts) -> Facts:
        return Facts(
            self.backend or other.backend,
            self.encrypted or other.encrypted,
            self.needs | other.needs,
            self.upward | other.upward,
            self.providers | other.providers,
            self.configurations | other.configurations,
            self.variables | other.variables,
        )


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def is_configuration(name: str) -> bool:
    """Whether a file of that name is configuration that the tools load."""
    return name.endswith((".tf", ".tofu", ".tf.json", ".tofu.json"))


def scan(name: str, text: str) -> Facts:
    """The facts of a configuration file; a file that cannot be read as what its name says has none."""
    if name.endswith(".json"):
        try:
            document = json.loads(text)
        except ValueError:
            return Facts()
        return _scan_json(document) if isinstance(document, dict) else Facts()
    return _scan_native(text)


def _scan_native(text: str) -> Facts:
    facts = Facts()
    blocks: list[tuple[str, ...]] = []
    statement: list[_Token] = []
    depth = 0
    for token in _tokens(text):
        if token.kind == "string":
            facts |= _upward(token.text, required=_is_source(blocks, statement))
        if blocks and blocks[0][:1] == ("terraform",) and token.kind != "newline":
            facts |= Facts(needs=frozenset({f"terraform {len(blocks)} {_line(statement)} {token.text}"}))
        if token.text in ("(", "[") or (token.text == "{" and (depth or _has_equals(statement))):
            depth += 1
        elif depth:
            depth -= token.text in (")", "]", "}")
        elif token.text == "{":
            blocks.append(tuple(item.text for item in statement))
            facts |= _block_facts(blocks)
            statement = []
            continue
        elif token.text == "}" or token.kind == "newline":
            facts |= _attribute_facts(blocks, statement)
            statement = []
            if token.text == "}" and blocks:
                blocks.pop()
            continue
        statement.append(token)
    return facts


def _block_facts(blocks: list[tuple[str, ...]]) -> Facts:
    match blocks:
        case [("terraform",), ("backend", kind)]:
            return Facts(backend=kind)
        case [("terraform",), ("cloud",)]:
            return Facts(backend="cloud")
        case [("terraform",), ("encryption",)]:
            return Facts(encrypted=True)
        case [("resource" | "data" | "ephemeral", kind, _)]:
            return _uses(kind.partition("_")[0])
        case [("provider", name)]:
            return _uses(name) | Facts(configurations=frozenset({(name, "")}))
        case [("variable", name)]:
            return Facts(variables=frozenset({name}))
        case [("module", name)]:
            return Facts(needs=frozenset({f"module {name}"}))
    return Facts()


def _attribute_facts(blocks: list[tuple[str, ...]], statement: list[_Token]) -> Facts:
    if len(statement) < 3 or statement[1].text != "=" or not blocks:
        return Facts()
    name, value = statement[0].text, statement[2].text
    match blocks:
        case [("module", label)] if name in ("source", "version"):
            return Facts(needs=frozenset({f"module {label} {name} {value}"}))
        case [("provider", label)] if name == "alias":
            return Facts(configurations=frozenset({(label, value)}))
        case [("resource" | "data" | "ephemeral", _, _)] if name == "provider":
            return _uses(value)
    return Facts()


def _uses(provider: str) -> Facts:
    return Facts(needs=frozenset({f"provider {provider}"}), providers=frozenset({provider}))


def _is_source(blocks: list[tuple[str, ...]], statement: list[_Token]) -> bool:
    return len(blocks) == 1 and blocks[0][:1] == ("module",) and [item.text for item in statement] == ["source", "="]


def _upward(text: str, *, required: bool = False) -> Facts:
    found = _UPWARD.match(text)
    if found is None:
        return Facts()
    # What an interpolation completes is unknown: then the folder before it is meant.
    path = found[2] if found.end() == len(text) else found[2].rpartition("/")[0]
    return Facts(upward=frozenset({Upward(path.partition("//")[0], required, found[1] == "root")}))


def _has_equals(statement: list[_Token]) -> bool:
    return any(item.text == "=" for item in statement)


def _line(statement: list[_Token]) -> str:
    return " ".join(item.text for item in statement)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if found := _SPACE.match(text, at):
            at = found.end()
        elif text[at] == "\n":
            at += 1
            yield _Token("newline", "\n")
        elif found := _HEREDOC.match(text, at):
            end = re.compile(rf"^[ \t]*{re.escape(found[1])}[ \t\r]*$", re.MULTILINE).search(text, found.end())
            yield _Token("heredoc", text[found.end() : end.start() if end else len(text)])
            at = end.end() if end else len(text)
        elif text[at] == '"':
            end_at = _string_end(text, at)
            yield _Token("string", text[at + 1 : end_at - 1])
            at = end_at
        elif found := _WORD.match(text, at):
            at = found.end()
            yield _Token("word", found[0])
        else:
            yield _Token("mark", text[at])
            at += 1


def _string_end(text: str, start: int) -> int:
    """Where the string that opens at `start` ends (after its quote); strings nest through `${ … }`."""
    nesting = [""]
    at = start + 1
    while at < len(text) and nesting:
        inside = nesting[-1] == ""
        if inside and text[at] == "\\":
            at += 1
        elif inside and text[at] in "$%" and text[at : at + 3] in ("$${", "%%{"):
            at += 2
        elif inside and text[at] in "$%" and text[at + 1 : at + 2] == "{":
            nesting.append("}")
            at += 1
        elif text[at] == '"':
            nesting.pop() if inside else nesting.append("")
        elif not inside and text[at] == "{":
            nesting.append("}")
        elif not inside and text[at] == "}":
            nesting.pop()
        at += 1
    return at


def _scan_json(document: Mapping[str, Any]) -> Facts:
    facts = Facts()
    for settings in _items(document.get("terraform")):
        kinds = [kind for backend in _items(settings.get("backend")) for kind in backend]
        facts |= Facts(
            backend="cloud" if "cloud" in settings else (kinds[0] if kinds else ""),
            encrypted="encryption" in settings,
            needs=frozenset({"terraform " + json.dumps(settings, sort_keys=True)}),
        )
    for section in ("resource", "data", "ephemeral"):
        for kinds_of in _items(document.get(section)):
            for kind in kinds_of:
                facts |= _uses(kind.partition("_")[0])
    for named in _items(document.get("provider")):
        for name, blocks in named.items():
            facts |= _uses(name)
            aliases = frozenset((name, str(block.get("alias", ""))) for block in _items(blocks))
            facts |= Facts(configurations=aliases)
    for declared in _items(document.get("variable")):
        facts |= Facts(variables=frozenset(declared))
    for modules in _items(document.get("module")):
        for name, blocks in modules.items():
            for block in _items(blocks):
                source, version = str(block.get("source", "")), block.get("version", "")
                facts |= Facts(needs=frozenset({f"module {name} {source} {version}"})) | _upward(source, required=True)
    for leaf in leaves(document):
        facts |= _upward(leaf) if isinstance(leaf, str) else Facts()
    return facts


def _items(value: Any) -> list[Mapping[str, Any]]:
    """JSON syntax lets one block stand alone or several in a list."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]
