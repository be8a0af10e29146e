"""Owns the forms in which a secret may reappear in a tool's output."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

SHORTEST = 6
"""Shorter values are not masked: they would match everywhere and blacken the log without hiding anything."""

_ARMOUR = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----\Z")
_TELLING = re.compile(r"key|secret|token|passw|credential", re.IGNORECASE)
_SHELL_SPECIAL = re.compile(r"([^\w@%+=:,./-])", re.ASCII)
_GO_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_BASE64_LINES = (64, 76)
_PIECE = 64


def variants(text: str) -> frozenset[bytes]:
    """Every byte sequence to mask for the secret `text`; each has `SHORTEST` to twice `_PIECE` bytes.

    The text without the white space around it, each of its lines, and what a JSON document holds under telling names;
    each of these raw, in base64 at the three alignments it can have inside a longer text, hexadecimal, URL-, JSON-,
    XML- and shell-escaped. White space at the ends is left out so that a mask never swallows a line break.
    """
    parts = {*_parts(text), *(part for leaf in _telling_leaves(text) for part in _parts(leaf))}
    return frozenset(piece for part in parts for form in _forms(part) for piece in _pieces(form))


def _parts(text: str) -> Iterator[str]:
    """The trimmed text and its lines, without the armour around keys, which is no secret."""
    trimmed = text.strip()
    if len(_raw(trimmed)) < SHORTEST:
        return
    yield trimmed
    for line in map(str.strip, trimmed.splitlines()):
        if not _ARMOUR.match(line):
            yield line


def _telling_leaves(text: str) -> Iterator[str]:
    """The texts that a JSON document, such as a cloud's key file, holds under names like `private_key`."""
    if not text.lstrip().startswith(("{", "[")):
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    waiting = [("", document)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((name, item) for item in value)
        elif isinstance(value, str) and _TELLING.search(name):
            yield value


def _pieces(form: bytes) -> Iterator[bytes]:
    """`form`, a long one in parts: what a stream must hold back is then short, whatever the length of a key."""
    while len(form) >= 2 * _PIECE:
        yield from (form[:_PIECE],) if form[:_PIECE].strip() else ()
        form = form[_PIECE:]
    if len(form) >= SHORTEST and form.strip():
        yield form


def _forms(text: str) -> Iterator[bytes]:
    raw = _raw(text)
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            yield from _base64_forms(encode(b"\0" * shift + raw), shift, len(raw))
    for escaped in _escaped(text):
        yield _raw(escaped)


def _raw(text: str) -> bytes:
    """The bytes that `text` stands for; an unpaired surrogate may stand for a byte that was not UTF-8."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")


def _base64_forms(encoded: bytes, shift: int, length: int) -> Iterator[bytes]:
    """The characters of `encoded` that the secret alone determines, whatever stands before and after it.

    `encoded` starts with `shift` foreign bytes. Tools that wrap their base64 do it every 64 or 76 characters: those
    lines are forms of their own.
    """
    core = encoded[(0, 2, 3)[shift] : (shift + length) * 8 // 6]
    yield core
    if shift == 0:
        for width in _BASE64_LINES:
            if len(core) > width:
                yield from (core[start : start + width] for start in range(0, len(core), width))


def _escaped(text: str) -> Iterator[str]:
    raw = _raw(text)
    percent = (quote(raw, safe=""), quote(raw))
    plus = quote_plus(raw)
    for quoted in (*percent, plus):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), quoted)
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield once.replace("/", "\\/")
        # Go, and so Terraform, escapes these three in JSON as well.
        yield once.translate(_GO_ESCAPES)
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        yield json.dumps(once.translate(_GO_ESCAPES), ensure_ascii=ascii_only)[1:-1]
    yield escape(text)
    yield escape(text, {'"': "&quot;", "'": "&apos;"})
    yield escape(text, {'"': "&#34;", "'": "&#39;"})
    yield escape(text, {'"': "&quot;", "'": "&#x27;"})
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    yield _SHELL_SPECIAL.sub(r"\\\1", text)
    # A single-quoted YAML scalar, and a template of Terraform's language.
    yield text.replace("'", "''")
    yield text.replace("${", "$${").replace("%{", "%%{")
