"""What a run knows: what is wanted, what is on record, and what its stages have come to so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skyspan.attempts.board import Board
from skyspan.attempts.contexts import ContextFactory, SourceDigests, Traces
from skyspan.contracts.context import Clock
from skyspan.contracts.provider import Providers
from skyspan.contracts.store import StageRecord
from skyspan.contracts.watch import Repair
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Change
from skyspan.model.composition import StageDeclaration
from skyspan.model.event import RunStarted, StageOutline
from skyspan.model.lifecycle import Verb
from skyspan.model.secret import Secret
from skyspan.model.value import Value
from skyspan.planning.draft import Checked
from skyspan.planning.resolve import Situation


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for. `checked` may be None for verbs that work from what was recorded (check, stop, destroy).

    `secrets` holds every secret that the composition reads, `inputs` every input's value. `approved` are the changes of
    a saved plan by stage, None without one. `folder` is absolute; `home` is the user's, for `~` in paths.
    """

    deployment: DeploymentAddress
    started: RunStarted
    folder: Path
    checked: Checked | None = None
    inputs: Mapping[str, Value] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    approved: Mapping[str, Change] | None = None
    home: Path | None = None
    repairs: Mapping[str, Repair] = field(default_factory=dict)
    """By stage, the step that a repair takes."""


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts work with. `fingerprint_key` keys the digests of settings, as those may hold secrets; `traces` is
    there when a run is carried on that another engine began."""

    providers: Providers
    contexts: ContextFactory
    digests: SourceDigests
    clock: Clock
    fingerprint_key: bytes
    traces: Traces | None = None


class Knowledge:
    """One run's, shared by all its attempts."""

    def __init__(self, wish: Wish, means: Means, records: Sequence[StageRecord]) -> None:
        self.wish, self.means = wish, means
        self.board = Board()
        self._outlines = {outline.name: outline for outline in wish.started.stages}
        order = wish.checked.order if wish.checked is not None else ()
        self._places = {name: place for place, name in enumerate(order)}
        self._records = {record.address.name: record for record in records}

    @property
    def verb(self) -> Verb:
        """What the run does."""
        return self.wish.started.verb

    def outline(self, stage: str) -> StageOutline:
        """What the engine was told of the stage."""
        return self._outlines[stage]

    def declared(self, stage: str) -> StageDeclaration | None:
        """The stage as the composition has it; None when it is not in it, or there is none."""
        checked = self.wish.checked
        return None if checked is None else checked.composition.stages.get(stage)

    def record(self, stage: str) -> StageRecord | None:
        """What is on record of the stage."""
        return self._records.get(stage)

    def remember(self, record: StageRecord) -> StageRecord:
        """The record as it is about to be written; later attempts of this run go on from it."""
        self._records[record.address.name] = record
        return record

    def forget(self, stage: str) -> None:
        """The stage's record is about to be removed."""
        self._records.pop(stage, None)

    def order(self, stage: str) -> int:
        """The declared stage's place in a dependency order."""
        return self._places.get(stage, len(self._places))

    def needs(self, stage: str) -> tuple[str, ...]:
        """The stages that the declared stage goes after."""
        checked = self.wish.checked
        return () if checked is None else tuple(sorted(checked.needs.get(stage, ())))

    def pending_needs(self, stage: str) -> tuple[str, ...]:
        """Those of the stages it goes after, near or far, that the plan would change."""
        found: dict[str, None] = {}
        front = list(self.needs(stage))
        while front:
            need = front.pop()
            if need not in found:
                found[need] = None
                front += self.needs(need)
        return tuple(sorted(need for need in found if need in self.board.pending))

    def scope(self, stage: str) -> Situation:
        """What expressions of the stage may read. Its needs have ended: those without outputs are absent for good."""
        checked = self.wish.checked
        if checked is None:
            msg = f"stage {stage} has no composition to be resolved from"
            raise ValueError(msg)
        lacks = {need: lack for need in self.needs(stage) if (lack := self.board.lack_of(need)) is not None}
        return Situation(
            composition=checked.composition,
            inputs=self.wish.inputs,
            outputs=self.board.outputs,
            pending=self.board.pending,
            absent={need: lack.reason for need, lack in lacks.items()},
            secrets=self.wish.secrets,
            folder=self.wish.folder,
            home=self.wish.home,
            names=checked.names,
        )
