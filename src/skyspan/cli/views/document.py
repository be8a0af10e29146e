"""JSON on standard output: one document, or one per line for streams."""

from __future__ import annotations

import json
import sys
from typing import Any


def show_document(document: Any) -> None:
    """Exactly one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_line(document: Any) -> None:
    """One document of a stream, on a line of its own."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def show_text(text: str) -> None:
    """Text that is itself the result (a graph, a schema, a template)."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()
