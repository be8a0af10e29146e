"""A run as it goes on: a live tree on a terminal, plain lines elsewhere, and the summary at its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import click

from skyspan.cli.views.style import STATUS_LOOKS, columns, count, duration, status
from skyspan.cli.views.tables import show_error
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    Event,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StagePlanned,
    StageProgressed,
    StageStarted,
)
from skyspan.model.lifecycle import StageStatus, Verb


class RunView(Protocol):
    """Shows a run while it goes on; always on standard error, so that standard output stays the result's."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, at: float, event: Event) -> None:
        """Something happened."""
        ...

    def line(self, stage: str, text: str) -> None:
        """A stage said something (redacted already)."""
        ...


@dataclass(slots=True)
class _Stage:
    """What the screen knows of one stage."""

    uses: str
    status: StageStatus = StageStatus.PENDING
    started: float = 0.0
    ended: float = 0.0
    said: str = ""
    change: str = ""


class PlainView:
    """A line per happening, for CI and pipes."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._started: dict[str, float] = {}
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def event(self, at: float, event: Event) -> None:
        """Something happened."""
        match event:
            case RunStarted(stages=stages):
                self._width = max((len(stage.name) for stage in stages), default=0)
            case StageStarted(stage=stage, attempt=attempt):
                self._started[stage] = at
                self._say(stage, "started" if attempt == 1 else f"started, attempt {attempt}")
            case StageEnded(stage=stage, status=state, reason=reason):
                took = f" in {duration(at - self._started[stage])}" if stage in self._started else ""
                self._say(stage, status(state.value) + took + (f": {reason}" if reason else ""))
            case AttemptFailed(stage=stage, error=error):
                self._say(stage, click.style(f"failed: {error.get('summary', '')}", fg="red"))
            case RetryScheduled(stage=stage, delay_s=delay):
                self._say(stage, f"tried again in {duration(delay)}")
            case StageProgressed(stage=stage, address=address, action=action, state=state, detail=detail):
                self._say(stage, f"{address}: {action} {state}" + (f" ({detail})" if detail else ""))
            case CancelRequested():
                click.echo(STOPPING, err=True)
            case _:
                pass

    def line(self, stage: str, text: str) -> None:
        """A stage said something."""
        if self._verbose:
            self._say(stage, f"| {text}")

    def _say(self, stage: str, text: str) -> None:
        click.echo(f"{stage:<{self._width}}  {text}", err=True)


STOPPING = "stopping in order: running tools get to save and unlock; Ctrl-C again ends them at once"


class LiveView:
    """One line per stage (state, elapsed, last log line), redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._stages: dict[str, _Stage] = {}
        self._note = ""
        self._live = Live(self, console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        # Drawn from the run's first event on: what is said before that, such as warnings, stays on the screen.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for name, stage in self._visible():
            symbol, colour = STATUS_LOOKS[stage.status.value]
            elapsed = self._elapsed(stage)
            grid.add_row(
                Text(f"{symbol} {name}", style=colour),
                Text(stage.uses, style="dim"),
                Text(stage.status.value, style=colour),
                Text(elapsed, style="dim"),
                Text(stage.said, style="dim", no_wrap=True, overflow="ellipsis"),
            )
        ended = sum(stage.status.ended for stage in self._stages.values())
        grid.add_row(
            Text(f"{ended} of {count(len(self._stages), 'stage')} done", style="bold"),
            "",
            "",
            "",
            Text(self._note, style="yellow"),
        )
        return grid

    def event(self, at: float, event: Event) -> None:
        """Something happened."""
        match event:
            case RunStarted(stages=stages):
                self._stages = {stage.name: _Stage(stage.uses) for stage in stages}
                self._live.start()
            case StageStarted(stage=name):
                self._stages[name].status = StageStatus.RUNNING
                self._stages[name].started = self._now()
            case StagePlanned(stage=name, change=change):
                self._stages[name].change = str(change.get("change", ""))
            case StageProgressed(stage=name, address=address, action=action, state=state):
                self._stages[name].said = f"{address}: {action} {state}"
            case AttemptFailed(stage=name, error=error):
                self._stages[name].said = error.get("summary", "")
            case RetryScheduled(stage=name, delay_s=delay):
                self._stages[name].said = f"tried again in {duration(delay)}: {self._stages[name].said}"
            case StageEnded(stage=name, status=state, reason=reason):
                self._stages[name].status = state
                self._stages[name].ended = self._now()
                self._stages[name].said = reason
            case CancelRequested():
                self._note = STOPPING
            case RunEnded():
                self._note = ""
            case _:
                pass

    def line(self, stage: str, text: str) -> None:
        """A stage said something."""
        if stage in self._stages and text.strip():
            self._stages[stage].said = text.strip()

    def _visible(self) -> list[tuple[str, _Stage]]:
        """What fits: running and failed stages first, then the rest in order, as many as the screen has lines."""
        room = max(self._console.height - 3, 5)
        everything = list(self._stages.items())
        if len(everything) <= room:
            return everything
        urgent = [item for item in everything if item[1].status in (StageStatus.RUNNING, StageStatus.FAILED)]
        return urgent[:room]

    def _elapsed(self, stage: _Stage) -> str:
        if not stage.started:
            return ""
        return duration((stage.ended or self._now()) - stage.started)

    def _now(self) -> float:
        return float(self._console.get_time())


class Quiet:
    """Shows nothing: for reading verbs that show their result at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def event(self, at: float, event: Event) -> None:
        """Something happened."""

    def line(self, stage: str, text: str) -> None:
        """A stage said something."""


def run_view(*, debug: bool) -> RunView:
    """The view that fits where standard error goes."""
    if sys.stderr.isatty() and not debug:
        return LiveView()
    return PlainView(verbose=debug)


def show_result(
    document: Mapping[str, Any], verb: Verb, *, next_steps: tuple[str, ...] = (), err: bool = False
) -> None:
    """The summary table, the cause of each failure, and the next command to type."""
    stages = document["stages"]
    rows = [
        (
            f"  {status(stage['status'])}",
            stage["name"],
            stage["uses"],
            duration(stage["duration_s"]),
            _why(stage),
        )
        for stage in stages
    ]
    click.echo(columns(rows), err=err)
    for stage in stages:
        if stage.get("error"):
            show_error(stage["name"], stage["error"], err=err)
    run = document["run"]
    numbers: dict[str, int] = {}
    for stage in stages:
        numbers[stage["status"]] = numbers.get(stage["status"], 0) + 1
    told = ", ".join(f"{number} {name}" for name, number in numbers.items())
    took = duration(run["duration_s"])
    click.echo(err=err)
    click.echo(
        f"{click.style(document['deployment'], bold=True)} {status(run['status'])} ({verb.value}): {told} in {took}",
        err=err,
    )
    for step in next_steps:
        click.echo(f"  next: {step}", err=err)


def _why(stage: Mapping[str, Any]) -> str:
    """What was done where all went well, else why it did not."""
    text = str(stage["reason"] or "")
    if stage["status"] == "succeeded" and stage["change"]:
        return "" if stage["change"] == "none" else str(stage["change"])
    return text.splitlines()[0] if text else ""
