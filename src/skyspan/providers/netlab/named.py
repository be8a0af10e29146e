"""Which files a topology needs besides itself: those that it names, and those that netlab looks for beside it.

Where a topology names files is in netlab's manual ("Including files", "Custom configuration templates", "Plugins",
"Search paths", "Using containerlab"); where it looks by itself, in its defaults (`paths`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from skyspan.model.error import SpecError

LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same in C where PyYAML was built with it: ten times as fast, and a lab may have many nodes."""

_BESIDE = ("topology-defaults.yml", "templates", "tasks", "validate", "readiness-check", "fetch-config")
"""What netlab looks for beside every topology."""

_NAMING = frozenset(
    ("_include", "sources", "config", "plugin", "paths", "binds", "config_templates", "startup-config", "env-files",
     "license")
)  # fmt: skip
"""Settings whose values name files, or begin names (`config: [x]` is x.j2, x.frr.j2, or a folder x)."""

_KEYS_TOO = frozenset(("binds", "config_templates"))
"""Those whose keys do."""

_HERE = "topology:"


def needed(topology: Path, content: bytes, root: Path) -> Iterator[Path]:
    """The files and folders that the topology of that path and content needs besides itself. Raises SpecError for one
    that it names and that is outside of `root`."""
    beside = topology.parent
    yield from (beside / name for name in _BESIDE if (beside / name).exists())
    contents = [(topology, content)]
    read = {topology}
    if (beside / _BESIDE[0]).is_file():
        contents.append((beside / _BESIDE[0], (beside / _BESIDE[0]).read_bytes()))
    while contents:
        file, content = contents.pop()
        for word in sorted(_words(content)):
            for found in _found(word, file.parent, beside):
                if not found.is_relative_to(root):
                    raise SpecError(
                        f"the topology names {word}, which is outside of the composition's folder",
                        hint="put the composition further up, so that its folder holds all of it",
                    )
                yield found
                if found.suffix in (".yml", ".yaml") and found.is_file() and found not in read:
                    read.add(found)
                    contents.append((found, found.read_bytes()))


def _found(word: str, *bases: Path) -> Iterator[Path]:
    """What there is of that name, or of names that it begins, seen from the bases, all but folders that hold these."""
    for path in dict.fromkeys(Path(os.path.normpath(base / word)) for base in bases):
        if not path.parent.is_dir():
            continue
        for child in sorted(path.parent.iterdir()):
            named = fnmatch(child.name, path.name) or child.name.startswith(f"{path.name}.")
            if named and not any(base.is_relative_to(child) for base in bases):
                yield child


def _words(content: bytes) -> set[str]:
    """What YAML may mean by names of files. Nothing of what cannot be read: netlab will say why."""
    try:
        return set(_named(yaml.load(content, Loader=LOADER), frozenset()))
    except (yaml.YAMLError, UnicodeDecodeError):
        return set()


def _named(value: Any, keys: frozenset[str]) -> Iterator[str]:
    """Strings at places that name files; `keys` are the settings that `value` is in."""
    if isinstance(value, dict):
        for key, item in value.items():
            # netlab takes `a.b: c` for `a: {b: c}`.
            inside = keys | frozenset(str(key).split("."))
            if keys & _KEYS_TOO:
                yield from _named(key, keys)
            yield from _named(item, inside)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, keys)
    elif isinstance(value, str) and keys & _NAMING:
        # `FILE:/where/in/the/container` in binds; `package:` and `~` are of netlab and of the user's home.
        word = value.removeprefix(_HERE).partition(":")[0].strip()
        if word and "\n" not in word and word[0] not in "/~":
            yield word
