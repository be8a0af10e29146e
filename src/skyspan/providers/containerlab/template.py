"""A topology that is a Go template: what it is rendered from, and reading what containerlab made of it.

containerlab takes every topology as a template (core/file.go): variables come from the files NAME_vars.* beside it,
other templates from the folder clab_templates. Only containerlab knows its functions, so it renders, on the lab's host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyspan.model.error import SpecError
from skyspan.model.value import digest
from skyspan.providers.archive import Entry, archived

FOLDER, VARIABLES, ENVIRONMENT = "topology", "variables.yml", "environment"
"""Names in what is sent to be rendered: the template's own folder, the settings' variables, the environment's."""

_END = "skyspan-end: true"
"""The last line of what is rendered. containerlab does not know such a key, so that it ends once it has rendered."""

_VARIABLE_FILES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True, slots=True)
class Template:
    """A template by the name of its file, with the other files that it is rendered from by their path beside it.
    `variables` is one more such file that counts instead of those beside it (empty: none), `env` the environment."""

    name: str
    text: str
    beside: Mapping[str, bytes]
    variables: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What tells it from one that renders differently."""
        beside = {name: content.hex() for name, content in self.beside.items()}
        return digest([self.name, self.text, beside, self.variables.hex(), dict(self.env)])

    def archive(self) -> bytes:
        """Everything, to be unpacked in a folder of its own."""
        import shlex

        env = "".join(
            f"export {name}={shlex.quote(value)}\n" for name, value in self.env.items() if name.isidentifier()
        )
        # By an action of its own: a text there would lose its line break where the template ends with `-}}`.
        marked = f'{self.text}{{{{ "\\n" }}}}{_END}\n'
        files = {ENVIRONMENT: env.encode(), f"{FOLDER}/{self.name}": marked.encode(), VARIABLES: self.variables}
        files |= {f"{FOLDER}/{name}": content for name, content in self.beside.items()}
        return archived(Entry(name, content) for name, content in files.items())


def is_template(text: str) -> bool:
    """Whether containerlab would find something to render."""
    return "{{" in text


def template_of(path: Path, text: str, variables: Path | Mapping[str, Any] | None, env: Mapping[str, str]) -> Template:
    """The template `text` at `path` with what belongs to it; raises SpecError for variables that cannot be read."""
    found = {item.name: item.read_bytes() for item in sorted(path.parent.iterdir()) if _is_beside(item, path)}
    more = sorted((path.parent / "clab_templates").glob("*.gotmpl"))
    found |= {f"clab_templates/{item.name}": item.read_bytes() for item in more}
    if variables is None:
        return Template(path.name, text, found, env=env)
    if isinstance(variables, Mapping):
        return Template(path.name, text, found, json.dumps(variables).encode(), env)
    try:
        return Template(path.name, text, found, variables.read_bytes(), env)
    except OSError as error:
        raise SpecError(f"no variables {variables}: {error}", hint="`vars` is relative to the composition") from error


def rendered(text: str) -> str | None:
    """The topology in what containerlab exported, without the line at its end; None when it did not come so far."""
    before, mark, _ = text.rpartition(f"\n{_END}")
    return before + "\n" if mark else None


def literal(text: str) -> str:
    """A text that containerlab renders to `text`: nothing in it is an action any more."""
    return text.replace("{{", '{{"{{"}}')


def _is_beside(item: Path, path: Path) -> bool:
    return item.is_file() and item.name.startswith(f"{path.stem}_vars.") and item.suffix in _VARIABLE_FILES
