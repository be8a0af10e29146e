"""A topology file as a tree of YAML nodes: variables put in, values with their positions, edits that keep the rest.

Scalars stay the text that was written (`3.10` is no number, `yes` no truth value), as containerlab's own types decide
what they are; what is not edited reaches it unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from skyspan.model.diagnostic import Position
from skyspan.model.error import SpecError

Path: TypeAlias = tuple[str | int, ...]
"""Keys and places in lists, from the root to a value."""

_NULL = "tag:yaml.org,2002:null"
_VARIABLE = re.compile(
    r"\$\$|\$(?:(?P<bare>(?!\d|_\b)\w+)"
    r"|\{(?P<name>(?!\d)\w+)(?:(?P<sign>:?[-=+])(?P<default>[^}\n]*))?\})"
)


@dataclass(frozen=True, slots=True)
class Read:
    """A topology as it was read: its root (a mapping), its values as texts, lists and mappings, and where each is."""

    file: str
    text: str
    root: yaml.MappingNode
    values: dict[str, Any]
    marks: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    doubled: tuple[Path, ...] = ()

    def where(self, path: Path) -> Position:
        """The place of a value, or of the nearest thing around it."""
        while path and path not in self.marks:
            path = path[:-1]
        return Position(self.file, *self.marks.get(path, (0, 0)))

    def excerpt(self, where: Position) -> str:
        """The line of that place."""
        lines = self.text.splitlines()
        return lines[where.line - 1] if 0 < where.line <= len(lines) else ""


def read(text: str, file: str, env: Mapping[str, str] | None = None) -> Read:
    """Read a topology, `env` put in for its variables (None: they are in it already, a `$` is one); raises SpecError
    with the place."""
    text = text.replace("$", "$$") if env is None else expand(text, env)
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
        raise SpecError(f"{where}: error: {getattr(error, 'problem', None) or error}", hint="it is no YAML") from error
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(f"{Position(file)}: error: a topology is a mapping with `name` and `topology`")
    marks: dict[Path, tuple[int, int]] = {}
    doubled: list[Path] = []
    values = _value(root, (), marks, doubled)
    return Read(file, text, root, values, marks, tuple(doubled))


def expand(text: str, env: Mapping[str, str]) -> str:
    """Put in variables as containerlab does (core/file.go, hellt/envsubst): `$A`, `${A}`, `${A:-default}`,
    `${A:=default}`, `${A:+other}`; one that is not set, or empty, and has no default stays as it is.

    The text goes through the same once more on the host: a `$` of a value is doubled, as `$$` stands for one.
    """

    def put_in(found: re.Match[str]) -> str:
        name, sign = found["bare"] or found["name"], found["sign"] or ""
        if not name:
            return found[0]
        value = env.get(name)
        if "+" in sign and value is not None:
            return expand(found["default"], env)
        if value:
            return value.replace("$", "$$")
        default = bool(sign) and "+" not in sign and (value is None or ":" in sign)
        return expand(found["default"], env) if default else found[0]

    return _VARIABLE.sub(put_in, text)


def child(node: yaml.MappingNode, *keys: str) -> yaml.MappingNode:
    """The mapping below those keys, made where it is not there (or is null)."""
    for key in keys:
        found = get(node, key)
        if not isinstance(found, yaml.MappingNode):
            found = yaml.MappingNode("tag:yaml.org,2002:map", [])
            put(node, key, found)
        node = found
    return node


def get(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    """What is at `key`."""
    return next((value for name, value in node.value if name.value == key), None)


def put(node: yaml.MappingNode, key: str, value: yaml.Node) -> None:
    """Set `key`, in its place where it is there."""
    for index, (name, _) in enumerate(node.value):
        if name.value == key:
            node.value[index] = (name, value)
            return
    node.value.append((text_node(key), value))


def text_node(text: str) -> yaml.ScalarNode:
    """A text, quoted where it would be read as something else."""
    return yaml.ScalarNode("tag:yaml.org,2002:str", text)


def node_of(value: Any) -> yaml.Node:
    """A plain value as a tree."""
    found = yaml.compose(yaml.safe_dump(value), Loader=yaml.CSafeLoader)
    assert found is not None
    return found


def write(root: yaml.Node) -> str:
    """The tree as text; the same tree gives the same text."""
    return yaml.serialize(root, Dumper=yaml.CSafeDumper, width=4096, allow_unicode=True)


def _value(node: yaml.Node, path: Path, marks: dict[Path, tuple[int, int]], doubled: list[Path]) -> Any:
    marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), marks, doubled) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return None if node.tag == _NULL else node.value.replace("$$", "$")
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, item in node.value:
        name = str(key.value)
        if key.tag == "tag:yaml.org,2002:merge":
            parts = item.value if isinstance(item, yaml.SequenceNode) else [item]
            for part in reversed(parts):
                merged.update(_value(part, path, {}, []))
            continue
        place = (*path, name)
        if name in found:
            doubled.append(place)
        marks[place] = (key.start_mark.line + 1, key.start_mark.column + 1)
        found[name] = _value(item, place, marks, doubled)
    return {**merged, **found}
