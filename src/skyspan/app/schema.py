"""The JSON Schema of `skyspan.yaml` with every provider's settings, for editors; generated from the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Composition
from skyspan.model.documentation import documented
from skyspan.planning.settings import CONNECTION, NAMING, TEMPLATE

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EXPRESSION = "expression"

_NARROWS_TEXT = ("maxLength", "minLength", "pattern", "format", "enum", "const")

Schema = dict[str, Any]


def composition_schema(specs: Mapping[str, type[Spec]]) -> Schema:
    """The schema of the whole file; `specs` maps each provider's name to the model of its settings."""
    schema = documented(Composition).model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions: Schema = schema.setdefault("$defs", {})
    stage: Schema = definitions["StageDeclaration"]
    for kind in sorted(specs):
        definitions |= _provider_definitions(kind, specs[kind])
    if specs:
        stage["properties"]["uses"]["enum"] = sorted([*specs, CONNECTION])
        entries: Schema = schema["properties"]["connections"]["patternProperties"]
        entries |= dict.fromkeys(entries, _entry(sorted(specs)))
    stage["properties"]["with"] = {"type": "object", "description": stage["properties"]["with"].get("description", "")}
    stage["properties"]["if"] = {
        "description": stage["properties"]["if"].get("description", ""),
        "anyOf": [{"type": "boolean"}, {"$ref": f"#/$defs/{EXPRESSION}"}],
        "default": True,
    }
    stage["allOf"] = [*(_rule(kind, specs[kind]) for kind in sorted(specs)), _from_connection()]
    definitions[EXPRESSION] = {
        "type": "string",
        "pattern": r"\$\{\{",
        "description": "An expression: ${{ inputs.… }}, ${{ stages.S.outputs.… }}, ${{ hosts.H.… }}, ${{ secrets.N }}.",
    }
    return {"$schema": DIALECT, "title": "Skyspan composition", **_without_titles(schema)}


def _naming() -> Schema:
    """The settings that name a connection."""
    about = "An entry of `connections:`, or a template of the workspace, that these settings are laid over."
    return {
        TEMPLATE: {"type": "string", "description": about},
        CONNECTION: {"type": "string", "description": "The same as `template`."},
    }


def _one_named() -> list[Schema]:
    return [{"required": [key]} for key in NAMING]


def _from_connection() -> Schema:
    """`uses: connection` takes its provider from the connection, so its other settings may be any."""
    settings = {"type": "object", "properties": _naming(), "anyOf": _one_named()}
    return {
        "if": {"properties": {"uses": {"const": CONNECTION}}, "required": ["uses"]},
        "then": {"properties": {"with": settings}, "required": ["with"]},
    }


def _entry(kinds: list[str]) -> Schema:
    """An entry of `connections:`: settings, or what a template of the workspace is."""
    written = {"uses": {"enum": kinds}, "with": {"type": "object"}, "description": {"type": "string"}}
    return {
        "type": "object",
        "if": {"anyOf": [{"required": ["uses"]}, {"required": ["with"]}]},
        "then": {"properties": written, "required": ["uses"], "additionalProperties": False},
    }


def _rule(kind: str, spec: type[Spec]) -> Schema:
    """What `with` must be when `uses` names this provider; a stage may start from a connection instead."""
    settings: Schema = {"properties": {"with": {"$ref": f"#/$defs/{kind}"}}}
    if any(field.is_required() for field in spec.model_fields.values()):
        settings["required"] = ["with"]
    return {"if": {"properties": {"uses": {"const": kind}}, "required": ["uses"]}, "then": settings}


def _provider_definitions(kind: str, spec: type[Spec]) -> Schema:
    """The provider's own definitions under names that no other provider's can have."""
    schema = documented(spec).model_json_schema(
        by_alias=True, schema_generator=_Generator, ref_template=f"#/$defs/{kind}.{{model}}"
    )
    inner = schema.pop("$defs", {})
    open_schema = allow_expressions(schema)
    # A connection may bring any of the settings, so none is missing where one is named.
    required = open_schema.pop("required", [])
    if required:
        open_schema["anyOf"] = [{"required": required}, *_one_named()]
    open_schema.setdefault("properties", {}).update(_naming())
    return {kind: open_schema} | {f"{kind}.{name}": allow_expressions(item) for name, item in inner.items()}


def allow_expressions(schema: Any) -> Any:
    """The schema with an expression allowed wherever a value stands, so that editors accept one for any setting."""
    if isinstance(schema, list):
        return [allow_expressions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    opened = dict(schema)
    for key in ("properties", "patternProperties", "$defs"):
        if key in opened:
            opened[key] = {name: _or_expression(allow_expressions(item)) for name, item in opened[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(opened.get(key), dict) and opened[key]:
            opened[key] = _or_expression(allow_expressions(opened[key]))
    for key in ("anyOf", "oneOf", "allOf"):
        if key in opened:
            opened[key] = [allow_expressions(item) for item in opened[key]]
    if "prefixItems" in opened:
        opened["prefixItems"] = [_or_expression(allow_expressions(item)) for item in opened["prefixItems"]]
    return opened


def _or_expression(schema: Schema) -> Schema:
    if not schema or _accepts_any_text(schema):
        return schema
    about: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    inner = {key: item for key, item in schema.items() if key not in about}
    return {**about, "anyOf": [*_branches(inner), {"$ref": f"#/$defs/{EXPRESSION}"}]}


def _branches(schema: Schema) -> list[Schema]:
    return list(schema["anyOf"]) if set(schema) <= {"anyOf", "title"} and "anyOf" in schema else [schema]


def _accepts_any_text(schema: Schema) -> bool:
    """Whether every text passes already; so does a schema that says nothing about types."""
    if "anyOf" in schema:
        return any(_accepts_any_text(item) for item in schema["anyOf"])
    if schema.get("type") == "string":
        return not any(key in schema for key in _NARROWS_TEXT)
    return not any(key in schema for key in ("type", "$ref", "oneOf", "allOf", "enum", "const"))


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, silent about branches that no JSON can take (a Secret made in code)."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _without_titles(schema: Any) -> Any:
    """Generated titles only repeat the keys; a property that is called `title` is no title."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            kept[key] = {name: _without_titles(item) for name, item in value.items()}
        elif key != "title":
            kept[key] = _without_titles(value)
    return kept
