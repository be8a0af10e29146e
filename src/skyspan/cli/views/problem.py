"""Errors and diagnostics for people, on standard error; as one JSON document where JSON was asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from skyspan.model.diagnostic import Diagnostic, Severity
from skyspan.model.error import CompositionError, SkyspanError


def show_problem(error: SkyspanError, *, as_json: bool) -> None:
    """What failed, the evidence, and what to do next."""
    if as_json:
        from skyspan.cli.views.document import show_document

        show_document(problem_document(error))
    if isinstance(error, CompositionError):
        show_diagnostics(error.diagnostics)
        count = sum(item.severity is Severity.ERROR for item in error.diagnostics)
        note(f"{count} error{'s' if count != 1 else ''}; nothing was touched")
        return
    click.secho(f"error: {error.summary}", fg="red", err=True)
    for line in error.detail.splitlines():
        click.echo(f"    {line}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def show_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Each in its pinned form."""
    for item in diagnostics:
        head, newline, rest = item.render().partition("\n")
        click.secho(head, fg="red" if item.severity is Severity.ERROR else "yellow", err=True)
        if newline:
            click.echo(rest, err=True)


def note(text: str) -> None:
    """A remark beside the result."""
    click.echo(text, err=True)


def ask(text: str) -> None:
    """A question, on whose line the answer will be."""
    click.echo(text, nl=False, err=True)


def problem_document(error: SkyspanError) -> dict[str, Any]:
    """The error as JSON."""
    document: dict[str, Any] = {
        "error": {"kind": type(error).__name__, "summary": error.summary, "detail": error.detail, "hint": error.hint}
    }
    if isinstance(error, CompositionError):
        document["diagnostics"] = [diagnostic_document(item) for item in error.diagnostics]
        document["error"]["summary"] = "the composition has errors"
    return document


def diagnostic_document(item: Diagnostic) -> dict[str, Any]:
    """One diagnostic as JSON."""
    return {
        "code": item.code,
        "severity": item.severity.value,
        "file": item.where.file,
        "line": item.where.line,
        "column": item.where.column,
        "summary": item.summary,
        "detail": item.detail,
        "hint": item.hint,
    }


def ensure_printable() -> None:
    """Symbols print everywhere: an ASCII terminal gets `?` instead of a crash."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
