"""The reference page of a provider, made from its spec: for `skyspan providers KIND` and docs/providers/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skyspan.providers.registry import ProviderDescription

Schema = Mapping[str, Any]

_SHOWN_DEFAULT = 60


def reference_page(described: ProviderDescription, schema: Schema) -> str:
    """Markdown: what it does, its settings, and those of the parts within, and an example where there is one (as
    `x-example` in the schema, Markdown itself). `schema` is the spec's JSON Schema."""
    lines = [f"# {described.kind}", "", described.summary, ""]
    if described.abilities:
        lines += [f"Beyond the four verbs: {', '.join(described.abilities)}.", ""]
    lines += ["## Settings", "", *_table(schema)]
    for name, part in sorted(schema.get("$defs", {}).items()):
        lines += ["", f"## {name}", "", _one_line(part.get("description", "")), "", *_table(part)]
    example = schema.get("x-example")
    if example:
        lines += ["", "## Example", "", str(example).strip()]
    return "\n".join(lines) + "\n"


def _table(schema: Schema) -> list[str]:
    required = set(schema.get("required", ()))
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else _default(field.get("default"))
        rows.append(f"| `{name}` | {_type(field)} | {default} | {_one_line(field.get('description', ''))} |")
    return rows


def _default(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= _SHOWN_DEFAULT else "see below"


def _type(field: Schema) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "enum" in field or "const" in field:
        return ", ".join(f"`{item}`" for item in field.get("enum", [field.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in field:
            names = dict.fromkeys(_type(item) for item in field[union] if item.get("type") != "null")
            return " or ".join(names)
    kind = field.get("type", "any")
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"map of {_type(inner)}" if isinstance(inner, dict) else "map"
    return str(kind)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
