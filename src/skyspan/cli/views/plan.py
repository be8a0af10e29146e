"""A plan for people: every stage, resource by resource, what is deferred and why, and one line that sums it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from skyspan.cli.views.style import ACTION_LOOKS, action, columns, count

_SUMMARY_WORDS = (
    ("create", "to create"),
    ("update", "to update"),
    ("replace", "to replace"),
    ("destroy", "to destroy"),
    ("deferred", "deferred"),
    ("none", "unchanged"),
)


def show_plan(document: Mapping[str, Any], *, err: bool = False) -> None:
    """The plan document, on standard output (or standard error when `err`, before a run that prints JSON)."""
    click.secho(f"Plan for {document['deployment']}", bold=True, err=err)
    click.echo(err=err)
    rows = [
        (f"  {action(stage['change'])} {stage['name']}", stage["uses"], stage["change"], _why(stage))
        for stage in document["stages"]
    ]
    for row, stage in zip(columns(rows).splitlines(), document["stages"], strict=True):
        click.echo(row, err=err)
        for resource in stage["resources"]:
            if resource["action"] != "none":
                note = f"  {click.style(resource['note'], dim=True)}" if resource.get("note") else ""
                click.echo(f"      {action(resource['action'])} {resource['address']}{note}", err=err)
        for reference in stage["unknown"]:
            click.echo(f"      {action('deferred')} {click.style(reference, fg='cyan')} is not known yet", err=err)
    click.echo(err=err)
    click.echo(summary(document), err=err)


def summary(document: Mapping[str, Any]) -> str:
    """`2 to create, 3 deferred` or `no changes`."""
    numbers = document["summary"]
    parts = [
        click.style(f"{numbers[name]} {words}", fg=ACTION_LOOKS[name][1])
        for name, words in _SUMMARY_WORDS
        if numbers.get(name)
    ]
    if not any(numbers.get(name) for name, _ in _SUMMARY_WORDS[:-1]):
        return f"No changes: {count(len(document['stages']), 'stage')} as described."
    return "Plan: " + ", ".join(parts) + "."


def _why(stage: Mapping[str, Any]) -> str:
    if stage["change"] == "deferred":
        return ""
    resources = [item for item in stage["resources"] if item["action"] != "none"]
    return str(stage["reason"]) or (count(len(resources), "resource") if resources else "")


def show_reverse(verb: str, deployment: str, stages: list[str]) -> None:
    """What `stop` or `destroy` is about to go through, last made first, on standard error."""
    click.secho(f"{verb.capitalize()} {deployment}, in this order:", bold=True, err=True)
    for stage in reversed(stages):
        click.echo(f"  {action('destroy') if verb == 'destroy' else '■'} {stage}", err=True)
