"""Tables for people, made from the published documents, so that both forms say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from skyspan.cli.views.style import columns, count, duration, status

Document = Mapping[str, Any]


def show_deployments(document: Document) -> None:
    """`skyspan list`."""
    rows = [
        (
            item["deployment"],
            status("interrupted" if item["interrupted"] else item["status"]),
            status(item["health"]),
            item["updated_at"] or "",
            item["folder"],
        )
        for item in document["deployments"]
    ]
    if not rows:
        click.echo("no deployments yet: write a composition with `skyspan init`, then `skyspan up`")
        return
    click.echo(columns(rows, ("deployment", "status", "health", "updated", "folder")))
    for item in document["deployments"]:
        if item["interrupted"]:
            click.echo(f"\n{item['deployment']} was interrupted, as its engine is gone")
            _show_ways_on(item["deployment"])


def show_status(document: Document) -> None:
    """`skyspan status NAME`."""
    cut_off = document["interrupted"]
    stands = status("interrupted" if cut_off else document["status"])
    click.echo(f"{click.style(document['deployment'], bold=True)}  {stands}  health: {document['health']}")
    run = document["run"]
    if run is None:
        click.echo("no run yet: skyspan up")
        return
    took = f", took {duration(run['duration_s'])}" if run["duration_s"] is not None else ""
    ran = status("interrupted" if cut_off else run["status"])
    click.echo(f"last run {run['id']}: {run['verb']} {ran}, started {run['started_at']}{took}\n")
    show_stages(document["stages"])
    if cut_off:
        click.echo("\ninterrupted, as its engine is gone:")
        _show_ways_on(document["deployment"])


def _show_ways_on(name: str) -> None:
    """What to type after an interruption."""
    click.echo(f"  next: skyspan resume {name}   # finishes it\n        skyspan cancel {name}   # ends it")


def show_stages(stages: Sequence[Document]) -> None:
    """A run's stages, one line each, failures with their cause below."""
    rows = [
        (
            stage["name"],
            stage["uses"],
            status(stage["status"]),
            stage["change"] or "",
            duration(stage["duration_s"]),
            _short(stage["reason"]),
        )
        for stage in stages
    ]
    if rows:
        click.echo(columns(rows, ("stage", "uses", "status", "change", "took", "reason")))
    for stage in stages:
        if stage.get("error"):
            show_error(stage["name"], stage["error"])


def show_error(stage: str, error: Document, *, err: bool = False) -> None:
    """Why a stage failed, whole."""
    click.echo(err=err)
    click.secho(f"{stage}: {error['summary']}", fg="red", err=err)
    for line in error.get("detail", "").splitlines():
        click.echo(f"    {line}", err=err)
    if error.get("hint"):
        click.echo(f"  hint: {error['hint']}", err=err)


def show_runs(document: Document) -> None:
    """`skyspan runs NAME`."""
    rows = [
        (
            run["id"],
            run["verb"],
            status(run["status"]),
            run["started_at"] or "",
            duration(run["duration_s"]),
            run["requested_by"],
        )
        for run in document["runs"]
    ]
    click.echo(columns(rows, ("run", "verb", "status", "started", "took", "by")) if rows else "no runs yet")


def show_run(document: Document) -> None:
    """`skyspan show RUN`."""
    run = document["run"]
    head = f"{document['deployment']}: {run['verb']} {status(run['status'])}"
    click.echo(f"{head}, started {run['started_at']} by {run['requested_by']}")
    if run["reason"]:
        click.echo(run["reason"])
    click.echo()
    show_stages(document["stages"])


def show_outputs(document: Document) -> None:
    """`skyspan outputs NAME`."""
    rows = [
        (stage, name, value_text(value))
        for stage, values in document["stages"].items()
        for name, value in values.items()
    ]
    click.echo(columns(rows, ("stage", "output", "value")) if rows else "no outputs")


def show_links(document: Document) -> None:
    """`skyspan links NAME`."""
    for link in document["links"]:
        ends = " ⇄ ".join(
            f"{end['host']} ({', '.join(end['prefixes'])})" if end["prefixes"] else end["host"] for end in link["ends"]
        )
        state = "  stopped" if link["stopped"] else ""
        click.echo(
            f"{click.style(link['stage'], bold=True)}  {link['uses']}  {ends}  allows {', '.join(link['allow'])}{state}"
        )
    if document["links"] and document["consoles"]:
        click.echo()
    rows = [(item["stage"], item["title"], item["url"]) for item in document["consoles"]]
    if rows:
        click.echo(columns(rows, ("stage", "resource", "console")))
    if not document["links"] and not rows:
        click.echo("no links")


def show_log_line(line: Document) -> None:
    """One line of the merged log, with its stage before it."""
    clock = (line["at"] or "")[11:23]
    click.echo(f"{click.style(clock, dim=True)} {click.style(line['stage'], fg='cyan')} | {line['text']}")


def show_event(event: Document) -> None:
    """One event in a line."""
    fields = {
        key: value
        for key, value in event.items()
        if key not in ("run", "seq", "at", "kind") and value not in (None, "", [], ())
    }
    if event["kind"] == "run_started":
        fields["stages"] = count(len(event["stages"]), "stage")
    told = " ".join(f"{key}={value_text(value)}" for key, value in fields.items())
    click.echo(f"{event['seq']:>5} {(event['at'] or '')[11:23]} {event['kind']:<18} {told}")


def show_names(names: Sequence[str], none: str) -> None:
    """A plain list, or what to do when it is empty."""
    click.echo("\n".join(names) if names else none)


def show_connections(document: Document) -> None:
    """`skyspan connections list`."""
    rows = [
        (item["name"], item["uses"], item["updated_at"] or "", item["description"]) for item in document["connections"]
    ]
    none = "no connections yet: skyspan connections add NAME FILE"
    click.echo(columns(rows, ("connection", "uses", "updated", "description")) if rows else none)


def show_accesses(document: Document) -> None:
    """`skyspan audit`."""
    rows = [
        (item["at"] or "", item["who"], item["what"], item["deployment"] or "", item["detail"])
        for item in document["accesses"]
    ]
    click.echo(columns(rows, ("at", "who", "what", "deployment", "detail")) if rows else "nothing secret was shown yet")


def show_providers(document: Document) -> None:
    """`skyspan providers`."""
    rows = [(item["kind"], ", ".join(item["abilities"]) or "-", item["summary"]) for item in document["providers"]]
    click.echo(columns(rows, ("provider", "abilities", "what it does")))


def show_findings(document: Document) -> None:
    """`skyspan doctor`."""
    looks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
    for finding in document["findings"]:
        symbol, colour = looks[finding["verdict"]]
        click.echo(f"{click.style(symbol, fg=colour)} {finding['what']}: {finding['found']}")
        if finding["hint"]:
            click.echo(f"    {finding['hint']}")


def value_text(value: Any) -> str:
    """A value in a line: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str, limit: int = 70) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= limit else first[: limit - 1] + "…"
