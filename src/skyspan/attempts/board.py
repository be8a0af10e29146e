"""Which outputs have become known in a run, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from skyspan.model.change import Change
from skyspan.model.value import OutputValue


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a stage has no outputs in this run, in words, and the stage at the root of it (perhaps itself)."""

    reason: str
    cause: str


class Board:
    """Written by each attempt as it ends, read by those that come after it.

    `outputs` holds what is certain; for the stages in `pending`, which a plan would change, that may not be all.
    """

    def __init__(self) -> None:
        self._outputs: dict[str, Mapping[str, OutputValue]] = {}
        self._lacks: dict[str, Lack] = {}
        self.outputs: Mapping[str, Mapping[str, OutputValue]] = MappingProxyType(self._outputs)
        self.pending: frozenset[str] = frozenset()

    def know(self, stage: str, outputs: Mapping[str, OutputValue]) -> None:
        """The stage's outputs are these, all of them."""
        self._outputs[stage] = outputs
        self._lacks.pop(stage, None)

    def foresee(self, stage: str, change: Change) -> None:
        """The stage would change: what the change says of its outputs is certain, others are not."""
        self._outputs[stage] = change.outputs
        self.pending |= {stage}

    def lack(self, stage: str, reason: str, cause: str = "") -> None:
        """The stage has no outputs in this run."""
        self._lacks[stage] = Lack(reason, cause or stage)

    def lack_of(self, stage: str) -> Lack | None:
        """Why the stage, which has ended, has no outputs; None when it has."""
        if stage in self._lacks:
            return self._lacks[stage]
        # Neither a result nor a failure of an attempt: it was never begun, or ended outside its attempt.
        return None if stage in self._outputs else Lack("it did not end well", stage)
