"""A rehearsal as it goes on, on standard error, and its report."""

from __future__ import annotations

from typing import Any

import click

from skyspan.cli.views.lab import is_lab, lab_lines
from skyspan.cli.views.style import columns, duration
from skyspan.cli.views.tables import show_links, value_text
from skyspan.rehearsal.report import EventKind, RehearsalEvent, RehearsalReport, Verdict

_LOOKS = (
    (Verdict.PASSED, click.style("✓", fg="green")),
    (Verdict.FAILED, click.style("✗", fg="red")),
    (Verdict.SKIPPED, click.style("»", fg="yellow")),
)

_NOT_SHOWN = frozenset({"graph", "report"})
"""Outputs that are drawings, or tell what the steps have told already."""

_WIDTH = 100
"""Of an output, in characters."""


def show_happening(event: RehearsalEvent) -> None:
    """One happening of the rehearsal."""
    clock = click.style(f"{event.at_s:7.1f}s", dim=True)
    match event.kind:
        case EventKind.STEP:
            click.echo(f"\n{clock} {click.style(event.step, bold=True)}: {event.text}", err=True)
        case EventKind.LINE:
            click.echo(f"{clock} | {event.text}", err=True)
        case EventKind.VERDICT:
            click.echo(f"{clock} {event.step}: {event.text}", err=True)
        case EventKind.WORLD:
            click.echo(f"{clock} {click.style(event.text, dim=True)}", err=True)


def show_report(report: RehearsalReport) -> None:
    """Every step with its verdict and duration, and what is left."""
    looks = dict(_LOOKS)
    rows = [(f"  {looks[step.verdict]} {step.name}", step.title, duration(step.duration_s)) for step in report.steps]
    click.echo(
        f"\n{click.style(f'Rehearsal of {report.composition}', bold=True)}, world up in {duration(report.boot_s)}\n"
    )
    click.echo(columns(rows))
    _show_what_was_there(report)
    for step in report.steps:
        told = [*step.detail.splitlines(), *(f"{name}: {_figure(name, value)}" for name, value in step.figures.items())]
        if told:
            click.echo(f"\n{step.name}:")
            click.echo("\n".join(f"    {line}" for line in told))
    if report.leftovers:
        click.secho("\nleft behind:", fg="red")
        click.echo("\n".join(f"  {item}" for item in report.leftovers))
    else:
        click.echo("\nnothing is left behind")
    verdict = click.style("passed", fg="green") if report.passed else click.style("failed", fg="red")
    click.echo(f"{verdict} in {duration(report.duration_s)}")


def _show_what_was_there(report: RehearsalReport) -> None:
    """The links, a picture of each lab, and all outputs, each in a line."""
    if report.links:
        click.echo(f"\n{click.style('links', bold=True)}")
        show_links({"links": report.links, "consoles": ()})
    for stage, outputs in report.outputs.items():
        if is_lab(outputs):
            click.echo(f"\n{click.style(f'lab of the stage {stage}', bold=True)}")
            click.echo("\n".join(f"  {line}" for line in lab_lines(outputs)))
    rows = [
        (f"  {stage}", name, _short(value_text(value)))
        for stage, outputs in report.outputs.items()
        for name, value in outputs.items()
        if name not in _NOT_SHOWN
    ]
    if rows:
        click.echo(f"\n{click.style('outputs', bold=True)}")
        click.echo(columns(rows))


def _figure(name: str, value: Any) -> str:
    return duration(value) if name.endswith("_s") else _short(value_text(value))


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
