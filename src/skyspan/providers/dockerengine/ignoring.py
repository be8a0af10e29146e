"""What a `.dockerignore` leaves out of a build's context, by the rules of the docker command's own matcher.

The rules: https://docs.docker.com/build/concepts/context/#dockerignore-files; the last line that matches a path or a
folder above it decides, `!` takes back, `**` stands for any number of folders.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from skyspan.model.error import SpecError

FILE = ".dockerignore"
"""Its name, in the context's first folder."""


def of_context(folder: Path, *dockerfiles: str) -> Callable[[str], bool] | None:
    """Whether a path of a build's context stays behind; None where nothing does. Raises SpecError.

    Only some builders heed a file `.dockerignore` of the Dockerfile's own: where there is one, nothing is left out."""
    own = any((folder / f"{dockerfile}{FILE}").is_file() for dockerfile in dockerfiles)
    if own or not (folder / FILE).is_file():
        return None
    try:
        return left_out((folder / FILE).read_text(encoding="utf-8"), *dockerfiles)
    except ValueError as error:
        raise SpecError(f"the {FILE} of {folder} cannot be read: {error}") from error


def left_out(text: str, *kept: str) -> Callable[[str], bool]:
    """Whether a path of the context stays behind (pure). The file itself and `kept` (the Dockerfile) never do: builders
    read them. Raises ValueError for a pattern that is none."""
    rules = tuple(_rules(text))
    needed = {FILE, *(posixpath.normpath(path) for path in kept)}

    def decide(path: str) -> bool:
        if path in needed:
            return False
        above = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        out = False
        for taken_back, pattern in rules:
            if taken_back == out and any(pattern.fullmatch(name) for name in (path, *above)):
                out = not taken_back
        return out

    return decide


def _rules(text: str) -> Iterator[tuple[bool, re.Pattern[str]]]:
    for line in text.removeprefix("\ufeff").splitlines():
        words = line.strip()
        if line.startswith("#") or not words:
            continue
        taken_back = words.startswith("!")
        path = words.removeprefix("!").strip()
        if not path:
            msg = f"{line!r} is no pattern"
            raise ValueError(msg)
        path = posixpath.normpath(path)
        try:
            yield taken_back, re.compile(_expression(path.lstrip("/") or path), re.DOTALL)
        except re.error as error:
            msg = f"{line!r} is no pattern: {error}"
            raise ValueError(msg) from error


_TOKEN = re.compile(r"\*\*/?|\*|\?|\\.|\[[^\]]*\]|.", re.DOTALL)


def _expression(path: str) -> str:
    found = []
    for match in _TOKEN.finditer(path):
        token = match.group()
        if token.startswith("**"):
            found.append(".*" if match.end() == len(path) else "(?:.*/)?")
        elif token in ("*", "?"):
            found.append("[^/]" + token.strip("?"))
        elif len(token) > 1:
            found.append(re.escape(token[1]) if token.startswith("\\") else token)
        else:
            # A bracket alone opens what is not closed: an error for the docker command too.
            found.append(token if token == "[" else re.escape(token))
    return "".join(found)
