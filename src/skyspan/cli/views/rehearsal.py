"""A rehearsal as it goes on, on standard error, and its report."""

from __future__ import annotations

import click

from skyspan.cli.views.style import columns, duration
from skyspan.rehearsal.report import EventKind, RehearsalEvent, RehearsalReport, Verdict

_LOOKS = (
    (Verdict.PASSED, click.style("✓", fg="green")),
    (Verdict.FAILED, click.style("✗", fg="red")),
    (Verdict.SKIPPED, click.style("»", fg="yellow")),
)


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
    for step in report.steps:
        if step.detail:
            click.echo(f"\n{step.name}:")
            click.echo("\n".join(f"    {line}" for line in step.detail.splitlines()))
    if report.leftovers:
        click.secho("\nleft behind:", fg="red")
        click.echo("\n".join(f"  {item}" for item in report.leftovers))
    else:
        click.echo("\nnothing is left behind")
    verdict = click.style("passed", fg="green") if report.passed else click.style("failed", fg="red")
    click.echo(f"{verdict} in {duration(report.duration_s)}")
