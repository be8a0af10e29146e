"""What happens to watched links, line by line, and what was measured, for people."""

from __future__ import annotations

from typing import Any

import click

from skyspan.cli.views.style import columns, duration, status

Document = dict[str, Any]


def show_happening(item: Document) -> None:
    """One thing that happened."""
    clock, link = click.style(item["at"][11:19], dim=True), click.style(item["link"], fg="cyan")
    for line in _words(item):
        click.echo(f"{clock} {link} | {line}")


def show_findings(found: dict[str, list[Document]]) -> None:
    """`skyspan links --diagnose`: a line for each cause, and one for each link that is well."""
    for link, findings in found.items():
        if not findings:
            click.echo(f"{click.style(link, bold=True)}  {status('healthy')}")
        for finding in findings:
            click.echo(f"{click.style(link, bold=True)}  {status('down')}  {_cause(finding)}")
            if finding["hint"]:
                click.echo(f"    {finding['hint']}")


def show_summary(document: Document) -> None:
    """What was measured, direction by direction and cause by cause, beside what three nines leave."""
    rows = [
        (
            link,
            status(told["health"]),
            f"{way['from']} -> {way['to']}",
            f"{way['availability'] * 100:.3f} %",
            str(way["outages"]),
            duration(way["longest_outage_s"]),
        )
        for link, told in document["links"].items()
        for way in told["directions"]
    ]
    click.echo(columns(rows, ("link", "now", "direction", "carried traffic", "outages", "longest")))
    causes = [
        (link, fault, str(told["outages"]), duration(told["mean_s"]), duration(told["longest_s"]))
        for link, link_told in document["links"].items()
        for fault, told in link_told["faults"].items()
    ]
    if causes:
        click.echo()
        click.echo(columns(causes, ("link", "cause", "outages", "over in (mean)", "longest")))
    click.echo()
    by = "repairing" if document["repairing"] else "looking on only"
    allowed = f"{document['allowed_s_in_30_days'] / 60:.1f} minutes"
    click.echo(
        f"measured for {duration(document['watched_s'])}, a probe every {document['period_s']:g} s, {by}; "
        f"{document['target'] * 100:.1f} % leaves {allowed} in 30 days"
    )


def _words(item: Document) -> list[str]:
    match item["what"]:
        case "up":
            after = f" after {duration(item['lasted_s'])} {item['before']}" if item["before"] != "unknown" else ""
            return [f"{status('healthy')}{after}"]
        case "degraded" | "down" | "unknown" as health:
            return [status(health), *(f"  {way}" for way in item["failing"])]
        case "cause":
            return [f"cause: {_cause(item)}", *([f"  {item['hint']}"] if item["hint"] else [])]
        case "repair":
            return [f"repair: {item['step']} on {item['host']}"]
        case "repaired" | "repair failed" as what:
            why = f": {item['words']}" if item.get("words") else ""
            return [f"{what}: {item['step']} on {item['host']} in {duration(item['took_s'])}{why}"]
        case what:
            return [f"{what}: {item['words']}", *([f"  {item['hint']}"] if item.get("hint") else [])]


def _cause(finding: Document) -> str:
    return f"{finding['cause']} at {finding['host']}: {finding['words']}"
