"""What a writing command has said it did, as far as the state does not hold it yet. Pure.

The tools push their state only when a resource finishes 20 seconds or more after the last push (hook_state.go), so
after a SIGKILL this is all that tells what was created. It outlives the attempt until a state holds all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from skyspan.model.change import Action
from skyspan.providers.terraform.holder import Holder
from skyspan.providers.terraform.parse import Moved

KEPT_JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Creation:
    """What the plan knew of a resource to be created: the attributes by which it can be recognised, and the resources
    that it refers to (as declared, without keys), which are there before it is begun."""

    type: str
    provider: str = ""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Journal:
    """The sum of all messages since the state was last known to be whole.

    `made` maps an address to the identity that its provider gave; `begun` are those whose end was never heard, with the
    attempt that began them; `destroyed` are addresses whose old object is known to be gone. `settled` is what a person
    has said of one in doubt: its import id, or nothing when it does not exist. `at` is when the last message came.
    `configuration` is the digest of what `creations` was planned from. While it is `open` a command is at work, and
    what that said last may not be in here yet: where everything dies at once, anything planned may have been begun.
    """

    holders: tuple[Holder, ...] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    begun: Mapping[str, str] = field(default_factory=dict)
    destroyed: frozenset[str] = frozenset()
    creations: Mapping[str, Creation] = field(default_factory=dict, repr=False)
    settled: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0
    configuration: str = ""
    open: bool = False

    @property
    def empty(self) -> bool:
        """Whether it tells of nothing that could be missing in the state."""
        return not self.made and not self.begun and not (self.open and self.creations)

    def opened(self, holder: Holder, creations: Mapping[str, Creation], at: float, configuration: str = "") -> Journal:
        """The journal as another attempt begins; what earlier ones left stays in it."""
        known = {address: item for address, item in self.creations.items() if self.open or address in self.begun}
        digest = configuration if self.empty else ""
        merged = {**creations, **known}
        return replace(self, holders=(*self.holders, holder), creations=merged, at=at, configuration=digest, open=True)

    def after(self, step: Moved, at: float) -> Journal:
        """The journal after that message."""
        if step.action is Action.DESTROY:
            return self._after_destroying(step, at)
        if step.action not in (Action.CREATE, Action.REPLACE):
            return self
        if step.state == "started":
            attempt = self.holders[-1].attempt if self.holders else ""
            return replace(
                self, begun={**self.begun, step.address: attempt}, settled=_without(self.settled, step), at=at
            )
        if step.state == "done":
            _, _, identity = step.note.partition("=")
            return replace(self, made={**self.made, step.address: identity}, begun=_without(self.begun, step), at=at)
        return replace(self, at=at)  # A creation that failed may have left its object all the same.

    def closed(self, known: Mapping[str, str], *, clean: bool, ok: bool) -> Journal:
        """What remains when the command has ended and the state holds `known` (address to id).

        `clean`: the tool ended by itself and its last state is safe, so nothing that this attempt began is in doubt.
        `ok`: it also did all that its plan said.
        """
        if ok:
            return Journal()
        mine = self.holders[-1].attempt if self.holders else ""
        made = {address: identity for address, identity in self.made.items() if not _holds(known, address, identity)}
        begun = {
            address: attempt
            for address, attempt in self.begun.items()
            if not (clean and (attempt == mine or address in known))
        }
        holders = self.holders[:-1] if clean and not made and not begun else self.holders
        destroyed = frozenset(address for address in self.destroyed if address in made or address in begun)
        return replace(self, holders=holders, made=made, begun=begun, destroyed=destroyed, open=False)

    def orphans(self, known: Mapping[str, str]) -> dict[str, str]:
        """What was made and is not in a state that holds `known`: address to identity."""
        return {address: identity for address, identity in self.made.items() if not _holds(known, address, identity)}

    def doubts(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """What was under way and is not in a state that holds `known`, by address."""
        return tuple(sorted(address for address in self.begun if address not in known))

    def suspects(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """What may have been begun without anybody having heard of it, by address."""
        heard = {*known, *self.made, *self.begun}
        return tuple(sorted(set(self.creations) - heard)) if self.open else ()

    def replaced(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """Addresses where the state still holds an object that is known to be destroyed, a newer one being made."""
        return tuple(
            sorted(
                address
                for address, identity in known.items()
                if address in self.destroyed and (address in self.begun or self.made.get(address, identity) != identity)
            )
        )

    def dump(self) -> bytes:
        """As it is kept."""
        document = {
            "format": 1,
            "holders": [holder.record() for holder in self.holders],
            "made": dict(self.made),
            "begun": dict(self.begun),
            "destroyed": sorted(self.destroyed),
            "settled": dict(self.settled),
            "creations": {
                address: [item.type, item.provider, dict(item.values), item.needs]
                for address, item in self.creations.items()
            },
            "at": self.at,
            "configuration": self.configuration,
            "open": self.open,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def load(cls, data: bytes | None) -> Journal:
        """The journal that `dump` made `data` of; an empty one for none."""
        if data is None:
            return cls()
        found = json.loads(data)
        return cls(
            holders=tuple(Holder.restore(item) for item in found["holders"]),
            made=found["made"],
            begun=found["begun"],
            destroyed=frozenset(found["destroyed"]),
            settled=found["settled"],
            creations={
                address: Creation(type_, provider, values, tuple(needs))
                for address, (type_, provider, values, needs) in found["creations"].items()
            },
            at=float(found["at"]),
            configuration=str(found["configuration"]),
            open=bool(found["open"]),
        )

    def _after_destroying(self, step: Moved, at: float) -> Journal:
        if step.state != "done":
            return replace(self, at=at)
        made = _without(self.made, step)
        return replace(self, made=made, destroyed=self.destroyed | {step.address}, at=at)


def _holds(known: Mapping[str, str], address: str, identity: str) -> bool:
    # Some resources tell no identity; then the address has to do.
    return address in known and (not identity or not known[address] or known[address] == identity)


def _without(values: Mapping[str, str], step: Moved) -> dict[str, str]:
    return {address: value for address, value in values.items() if address != step.address}
