"""What the flows in the background have come to: which role is gone, and what their last windows hold; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skyspan.model.change import Action, ResourceChange
from skyspan.providers.traffic.commands import listen_role, send_role
from skyspan.providers.traffic.figures import Figures, breaches
from skyspan.providers.traffic.orders import longest, without_secrets
from skyspan.providers.traffic.parse import Tool, read
from skyspan.providers.traffic.spec import Flow, TrafficSpec
from skyspan.providers.traffic.survey import Look, RoleLook, Window

_LATE_S = 10
"""A window is overdue when it is that much later than the longest it can take."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One flow. `gone` are roles that do not run, `wrong` is what its last window breaks, in words; `figures` are None
    before the first window."""

    name: str
    gone: tuple[ResourceChange, ...] = ()
    wrong: tuple[str, ...] = ()
    figures: Figures | None = None

    @property
    def ok(self) -> bool:
        """Whether it runs and holds what it must."""
        return not self.gone and not self.wrong and self.figures is not None

    def words(self) -> str:
        """The flow in a line for people."""
        lost = [f"{item.address} {item.note}" for item in self.gone]
        why = "; ".join((*lost, *self.wrong))
        shown = self.figures.words() if self.figures is not None and not self.figures.failed else ""
        both = f"{why} ({shown})" if why and shown else why or shown
        return f"{self.name}: {both}"


def verdict(name: str, flow: Flow, tool: str, looks: Mapping[str | None, Look], since: int = 0) -> Verdict:
    """What has become of a flow in the background. Windows that began before `since` (by its host's clock) do not
    count."""
    sends = looks[flow.from_.host].roles.get(send_role(name), RoleLook())
    gone = tuple(_gone(name, flow, looks))
    window = sends.window if sends.window is not None and sends.window.begun >= since else None
    if window is None:
        return Verdict(name, gone, ("no window yet",) if not gone else ())
    text, words = without_secrets(flow, window.text), without_secrets(flow, window.words)
    figures = read(Tool(tool), text, words, window.code)
    late = _overdue(flow, window, looks[flow.from_.host].now)
    wrong = (late,) if late else breaches(figures, flow.thresholds)
    # What is gone explains the figures.
    return Verdict(name, gone, () if gone else wrong, figures)


def _gone(name: str, flow: Flow, looks: Mapping[str | None, Look]) -> Iterator[ResourceChange]:
    wanted = [(flow.from_, send_role(name), "generator")]
    if flow.served:
        wanted.append((flow.to, listen_role(name), "server"))
    for end, role, what in wanted:
        seen = looks[end.host].roles.get(role)
        if seen is None or not seen.alive:
            said = f": {seen.said.splitlines()[-1]}" if seen is not None and seen.said else ""
            yield ResourceChange(f"{end.words()}: {what} of {name}", Action.CREATE, f"does not run{said}")


def _overdue(flow: Flow, window: Window, now: int) -> str:
    most = longest(flow) + (flow.pause or 0) + _LATE_S
    silent = now - window.ended
    return f"its last window ended {silent} s ago" if silent > most else ""


def background(spec: TrafficSpec) -> Mapping[str, Flow]:
    """The flows that go on."""
    return {name: flow for name, flow in spec.flows.items() if flow.background}
