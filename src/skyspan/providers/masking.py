"""Takes known secrets out of texts that a tool or a server said, before they enter an error or a reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote

from skyspan.model.secret import MASK, Secret


def mask_secrets(text: str, secrets: Iterable[Secret]) -> str:
    """`text` with every secret replaced by the mask, also where it was quoted for JSON or a URL or put in base64.

    The redactor at the sinks does the same for everything that is stored; this keeps errors clean where they arise.
    """
    for shape in sorted({shape for secret in secrets for shape in _shapes(secret.reveal())}, key=len, reverse=True):
        text = text.replace(shape, MASK)
    return text


def holds_secret(text: str, secrets: Iterable[Secret]) -> bool:
    """Whether any of the secrets shows in `text`."""
    return any(shape in text for secret in secrets for shape in _shapes(secret.reveal()))


def _shapes(text: str) -> frozenset[str]:
    if not text:
        return frozenset()
    whole = {text, json.dumps(text)[1:-1], quote(text, safe=""), base64.b64encode(text.encode()).decode()}
    lines = {line for line in text.splitlines() if len(line) >= _LINE}
    return frozenset(whole | lines)


_LINE = 8
"""Shorter lines of a secret of several lines (a key file) are too common to be masked by themselves."""
