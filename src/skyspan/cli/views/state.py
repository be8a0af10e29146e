"""What a stage's state holds and what happened to it, for people; made from the published documents."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click

from skyspan.cli.views.style import columns, count

Document = Mapping[str, Any]


def show_state(data: bytes) -> None:
    """A state, byte by byte as it is kept."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show_resources(document: Document) -> None:
    """`skyspan state list`."""
    rows = [(item["address"], item["type"], _marks(item)) for item in document["resources"]]
    rows += [(item["address"], "", f"made as {item['id'] or '?'}, will be imported") for item in document["to_import"]]
    rows += [(address, "", "in doubt") for address in document["in_doubt"]]
    text = columns(rows, ("resource", "type", "note")) if rows else "the state holds no resources"
    lines = [text, "", f"serial {document['serial']}, lineage {document['lineage'] or 'none yet'}"]
    lock = document["lock"]
    if lock:
        lines.append(f"locked by {_holder(lock)}")
    if document["in_doubt"]:
        where = f"{document['deployment']} --stage {document['stage']}"
        first = shlex.quote(document["in_doubt"][0])
        lines.append(f"to settle what is in doubt: skyspan state settle {first} {where} --import-id ID   (or --absent)")
    click.echo("\n".join(lines))


def show_history(document: Document) -> None:
    """`skyspan state history`."""
    rows = [
        (
            item["at"] or "",
            str(item["serial"]) if "serial" in item else "",
            count(item["size"], "byte") if "size" in item else "",
            _happened(item),
            f"lease {item['by_epoch']}",
        )
        for item in document["history"]
    ]
    headers = ("at", "serial", "size", "what happened", "by")
    click.echo(columns(rows, headers) if rows else "no earlier state is kept")


def _marks(item: Document) -> str:
    marks = [text for key, text in (("tainted", "half made"), ("deposed", "to be destroyed")) if item[key]]
    return ", ".join(marks)


def _holder(lock: Document) -> str:
    who = f"attempt {lock['attempt']} of run {lock['run']}" if lock["run"] else f"lock {lock['id']}"
    runs = {True: "still running", False: "dead", None: "perhaps still running"}[lock["running"]]
    return f"{who} on {lock['host']}" + (f" since {lock['since']}" if lock["since"] else "") + f", {runs}"


def _happened(item: Document) -> str:
    if item["event"] == "replaced":
        return f"replaced {item.get('why') or 'by a command'}"
    return f"lock {item['lock']} broken: {item['why']}"
