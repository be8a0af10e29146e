"""From a path to a checked composition: reads the file, and reports everything wrong with it at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from skyspan.app.library import NO_LIBRARY, Joined, Library, LookUp, join, wanted
from skyspan.model.composition import Composition
from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import CompositionError, UsageError
from skyspan.model.expression import Loc
from skyspan.model.value import Value
from skyspan.planning.passes import check
from skyspan.planning.shape import locate, shape_findings
from skyspan.planning.source import Source

if TYPE_CHECKING:
    from skyspan.planning.draft import Checked, SpecOf

FILE_NAME = "skyspan.yaml"
MAX_BYTES = 4 * 1024 * 1024
_MAX_ROUNDS = 6
_HEAD = MappingProxyType({"skyspan": 1, "name": "unnamed"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A composition whose shape is right. `positions` finds its parts in the file; `raw` is the file as plain data;
    `folder` is absolute; `digest` is the SHA-256 of the file's bytes. The templates of the workspace that it was joined
    with stand in `composition` and `raw`, and count for `digest`."""

    composition: Composition
    positions: Source
    text: str
    folder: Path
    digest: str
    path: Path
    raw: dict[str, Any]


def find(start: Path) -> Path:
    """The nearest `skyspan.yaml` in `start` or above it; raises UsageError when there is none."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise UsageError(
        f"there is no {FILE_NAME} in {start} or above it",
        hint="name one with --file, or write a first one with `skyspan init`",
    )


def load(path: Path) -> Loaded:
    """The composition in the file `path`, or in `skyspan.yaml` when that is a folder.

    Raises CompositionError with every error of syntax and shape, UsageError when there is no such file.
    """
    with _without_collections():
        return _read(path).finished()


def load_checked(path: Path, spec_of: SpecOf | None = None, look_up: LookUp | None = None) -> tuple[Loaded, Checked]:
    """The composition, loaded and through every pass of planning; `look_up` finds templates that it does not hold.

    Raises CompositionError with the errors of the file's shape and of what it means together: parts whose shape is
    wrong are left out for the second half, and nothing is said about their absence. UsageError as `load`.
    """
    reading = read(path)
    names = reading.wanted
    return reading.checked(spec_of, look_up(names) if names and look_up is not None else NO_LIBRARY)


def read(path: Path) -> Reading:
    """The file as far as it can be read; raises as `load`, but for errors that are told with those of the passes."""
    with _without_collections():
        return _read(path)


@dataclass(frozen=True, slots=True)
class Reading:
    """A file as far as it could be read. `composition` is what remains without the `broken` parts; None if nothing."""

    path: Path
    content: bytes
    raw: Value
    source: Source
    findings: tuple[Diagnostic, ...] = ()
    composition: Composition | None = None
    broken: frozenset[Loc] = frozenset()

    @property
    def wanted(self) -> frozenset[str]:
        """The workspace's templates that it names."""
        return frozenset() if self.composition is None else wanted(self.composition)

    def finished(self, joined: Joined | None = None) -> Loaded:
        """The composition without a check; raises CompositionError with what is wrong with its shape."""
        if self.findings or self.composition is None:
            raise CompositionError(self.findings)
        joined = joined or join(self.composition, self.source, NO_LIBRARY)
        return Loaded(
            joined.composition,
            joined.source,
            self.content.decode("utf-8-sig"),
            self.path.parent,
            joined.digest(self.content),
            self.path,
            joined.raw(self.raw),
        )

    def checked(self, spec_of: SpecOf | None, library: Library) -> tuple[Loaded, Checked]:
        """Through every pass, with the templates of `library`; raises CompositionError with all that is wrong."""
        if self.composition is None:
            raise CompositionError(self.findings)
        joined = join(self.composition, self.source, library)
        earlier = (*self.findings, *joined.findings)
        try:
            with _without_collections():
                checked = check(
                    joined.composition,
                    joined.source,
                    spec_of,
                    broken=self.broken,
                    earlier=earlier,
                    templates=joined.templates,
                )
        except CompositionError as error:
            raise CompositionError(joined.told(error.diagnostics)) from None
        return self.finished(joined), checked


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage collection meanwhile: a large file makes many objects that all stay, and looking through them again
    and again took more time than reading it and grew with the square of its size."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _read(path: Path) -> Reading:
    path = _existing(path)
    name = _shown(path)
    content = _content(path, name)
    from skyspan.app.yaml_source import parse_yaml

    raw, source, findings = parse_yaml(_decode(content, name), name)
    if raw is None and findings:
        return Reading(path, content, raw, source, findings)
    if not isinstance(raw, dict):
        return Reading(path, content, raw, source, (*findings, _not_a_composition(raw, source)))
    return _validate(Reading(path, content, raw, source, findings))


def _existing(path: Path) -> Path:
    path = path.absolute()
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise UsageError(f"there is no {FILE_NAME} in {path}", hint="write a first one with `skyspan init`")
        return path / FILE_NAME
    if not path.exists():
        raise UsageError(f"there is no file {path}", hint="name a composition, or the folder that holds skyspan.yaml")
    return path


def _shown(path: Path) -> str:
    """The path for messages: relative to where we are when it is below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _content(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
            size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        limit = f"{MAX_BYTES // (1024 * 1024)} MiB"
        summary = f"the file is too large: {size / (1024 * 1024):.1f} MiB, the limit is {limit}"
        hint = "keep data in files of its own, which stages read, and describe only the deployment here"
        raise CompositionError([Diagnostic("too-large", summary, Position(name), hint=hint)])
    return content


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line_start = before.rfind(b"\n") + 1
        line, column = before.count(b"\n") + 1, len(before[line_start:].decode(errors="replace")) + 1
        rest = content[line_start:].split(b"\n", 1)[0].decode(errors="replace").rstrip("\r")
        summary = f"the file is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}"
        hint = "save it as UTF-8"
        where = Position(name, line, column)
        raise CompositionError([Diagnostic("not-utf8", summary, where, hint=hint, excerpt=rest)]) from None


def _not_a_composition(raw: Value, source: Source) -> Diagnostic:
    hint = "it begins with `skyspan: 1`, `name:` and `stages:`; `skyspan init` writes an example"
    if raw is None:
        where = Position(source.value(()).file)
        return Diagnostic("empty", "the file is empty", where, hint=hint)
    where = source.value(())
    kind = "a list" if isinstance(raw, list) else "a single value"
    return Diagnostic(
        "wrong-type", f"a composition is a mapping, this is {kind}", where, hint=hint, excerpt=source.excerpt(where)
    )


def _validate(reading: Reading) -> Reading:
    try:
        return _with(reading, Composition.model_validate(reading.raw), (), frozenset())
    except ValidationError as error:
        reported = {item.where for item in reading.findings}
        shape = shape_findings(error, Composition, reading.raw, reading.source, lambda loc: loc)
        found = tuple(item for item in shape if item.where not in reported)
        composition, broken = _remaining(reading.raw, error)
        return _with(reading, composition, found, broken)


def _with(
    reading: Reading, composition: Composition | None, found: tuple[Diagnostic, ...], broken: frozenset[Loc]
) -> Reading:
    findings = tuple(sorted((*reading.findings, *found), key=lambda item: (item.where, item.summary)))
    return Reading(reading.path, reading.content, reading.raw, reading.source, findings, composition, broken)


def _remaining(raw: dict[str, Any], error: ValidationError) -> tuple[Composition | None, frozenset[Loc]]:
    """What is left of a composition without the parts that `error` complains of, and where those were.

    The smallest parts go first; where something is still wrong without them, what held them goes too. None when
    nothing valid is left.
    """
    broken: set[Loc] = set()
    pruned: Value = raw
    for _ in range(_MAX_ROUNDS):
        for loc in _complaints(error, pruned):
            while loc in broken and len(loc) > 1:
                loc = loc[:-1]
            pruned = _without(pruned, loc)
            broken.add(loc)
        if "skyspan" in raw and ("skyspan",) in broken:
            return None, frozenset(broken)  # another version of the format may mean anything
        try:
            return Composition.model_validate(_HEAD | pruned), frozenset(broken)
        except ValidationError as again:
            error = again
    return None, frozenset(broken)


def _complaints(error: ValidationError, raw: Value) -> Iterator[Loc]:
    """The places that are wrong; for a key that is missing, the part that lacks it."""
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        loc = locate(item["loc"], item["type"], raw)
        if item["type"] == "missing":
            loc = loc[:-1]
        if loc:
            yield loc


def _without(value: Value, loc: Loc) -> Value:
    """A copy of `value` without what is at `loc`."""
    step, rest = loc[0], loc[1:]
    if isinstance(value, dict) and step in value:
        if not rest:
            return {key: item for key, item in value.items() if key != step}
        return {**value, step: _without(value[step], rest)}
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        if not rest:
            return value[:step] + value[step + 1 :]
        return [*value[:step], _without(value[step], rest), *value[step + 1 :]]
    return value
