"""What the provider suite reads in a provider's source: its spec's models, and where it leaves its context."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

_FORBIDDEN = frozenset(
    {
        "time.time",
        "time.monotonic",
        "time.sleep",
        "time.perf_counter",
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "os.environ",
        "os.getenv",
        "os.urandom",
        "uuid.uuid1",
        "uuid.uuid4",
        "asyncio.sleep",
    }
)
_FORBIDDEN_MODULES = frozenset({"random", "secrets", "subprocess", "asyncssh"})


def models_of(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and every model that its fields are made of."""
    found: list[type[BaseModel]] = []
    waiting: list[Any] = [model]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in found:
                found.append(kind)
                waiting += [info.annotation for info in kind.model_fields.values()]
        else:
            waiting += [part for part in get_args(kind) if part is not None]
    return found


def source_files(provider: object) -> tuple[Path, ...]:
    """The files beside the class, when it lives in a package of its own; else its own file."""
    path = Path(inspect.getfile(type(provider)))
    package = sys.modules[type(provider).__module__].__package__
    return tuple(sorted(path.parent.glob("*.py"))) if package and path.name == "provider.py" else (path,)


def impurities(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of `path` that take time, chance, environment or processes from elsewhere than the context."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            name = ".".join(ast.unparse(node).split(".")[-2:])
            if name in _FORBIDDEN:
                yield node.lineno, name
        elif isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            yield from ((node.lineno, name) for name in sorted(names & _FORBIDDEN_MODULES))
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
            yield from ((node.lineno, name) for name in sorted(full & (_FORBIDDEN | _FORBIDDEN_MODULES)))
