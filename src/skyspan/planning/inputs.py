"""Which value each input has: the command line, then a file, then the environment, then the default."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skyspan.model.composition import Composition, InputDeclaration
from skyspan.model.error import UsageError
from skyspan.model.secret import Secret
from skyspan.model.value import Value, concealed
from skyspan.model.value_type import ValueType, conform, from_text, parse_type
from skyspan.planning.source import nearest

ENVIRONMENT_PREFIX = "SKYSPAN_INPUT_"


def resolve_inputs(
    composition: Composition,
    given: Mapping[str, Value] | None = None,
    from_file: Mapping[str, Value] | None = None,
    from_env: Mapping[str, str] | None = None,
) -> dict[str, Value]:
    """Every input with its value, of its declared type; sensitive ones are Secrets.

    `given` comes from the command line (a text is read as the declared type demands), `from_file` is data, `from_env`
    maps SKYSPAN_INPUT_NAME (with or without the prefix, in any case) to texts; unknown names there are ignored, as an
    environment is shared. Raises UsageError that lists every problem.
    """
    declared = composition.inputs
    given, from_file, env = given or {}, from_file or {}, _by_input(declared, from_env or {})
    problems = [*_unknown(declared, given, "--input"), *_unknown(declared, from_file, "the inputs file")]
    resolved: dict[str, Value] = {}
    for name, declaration in declared.items():
        try:
            resolved[name] = _resolve(name, declaration, given, from_file, env)
        except ValueError as error:
            problems.append(f"input {name}: {error}")
    if problems:
        hint = f"give them with --input NAME=VALUE, in a file with --inputs, or as {ENVIRONMENT_PREFIX}NAME"
        summary = problems[0] if len(problems) == 1 else f"{len(problems)} problems with the inputs"
        raise UsageError(summary, detail="\n".join(problems) if len(problems) > 1 else "", hint=hint)
    return resolved


def variable_of(name: str) -> str:
    """The environment variable that gives the input `name`."""
    return ENVIRONMENT_PREFIX + name.upper().replace("-", "_")


def _by_input(declared: Mapping[str, InputDeclaration], env: Mapping[str, str]) -> dict[str, str]:
    texts = {_variable(key): text for key, text in env.items()}
    return {name: texts[variable_of(name)] for name in declared if variable_of(name) in texts}


def _variable(key: str) -> str:
    return variable_of(key.upper().removeprefix(ENVIRONMENT_PREFIX))


def _unknown(declared: Mapping[str, InputDeclaration], given: Mapping[str, Value], where: str) -> list[str]:
    return [
        f"there is no input {name!r} ({where}); {nearest(name, declared, 'inputs')}"
        for name in given
        if name not in declared
    ]


def _resolve(
    name: str,
    declaration: InputDeclaration,
    given: Mapping[str, Value],
    from_file: Mapping[str, Value],
    env: Mapping[str, str],
) -> Value:
    kind = parse_type(declaration.type)
    if name in given:
        read = from_text if isinstance(given[name], str) else conform
        return _typed(given[name], kind, declaration, "--input", read)
    if name in from_file:
        return _typed(from_file[name], kind, declaration, "the inputs file", conform)
    if name in env:
        return _typed(env[name], kind, declaration, variable_of(name), from_text)
    if "default" not in declaration.model_fields_set:
        about = f" ({declaration.description})" if declaration.description else ""
        msg = f"is required{about}: --input {name}=… or {variable_of(name)}=…"
        raise ValueError(msg)
    if declaration.default is None:
        return None
    return _typed(declaration.default, kind, declaration, "its default", conform)


def _typed(
    value: Value, kind: ValueType, declaration: InputDeclaration, where: str, read: Callable[[Value, ValueType], Value]
) -> Value:
    sensitive = declaration.sensitive or kind.name == "secret"
    try:
        typed = read(value, kind)
    except ValueError as error:
        msg = (
            f"from {where}: a value that is no {kind} (sensitive, not shown)" if sensitive else f"from {where}: {error}"
        )
        raise ValueError(msg) from None
    return concealed(typed) if sensitive and not isinstance(typed, Secret) else typed
