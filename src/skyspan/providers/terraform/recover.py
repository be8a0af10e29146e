"""Plans what an interrupted command left: proves it dead, imports what it made, looks for what was under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from skyspan.contracts.context import ReadContext
from skyspan.model.error import StageError
from skyspan.providers.terraform.configuration import IMPORT_FILE, LOOKUP_FILE, Configuration
from skyspan.providers.terraform.import_ids import import_blocks
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.lookup import (
    Asked,
    Found,
    Settled,
    Wanted,
    answers,
    is_nothing_found,
    question_blocks,
    questions,
    settle,
)
from skyspan.providers.terraform.rescue import (
    Triage,
    creations_of,
    in_doubt,
    missing_objects,
    triage,
    without_destroyed,
)
from skyspan.providers.terraform.session import Planned, Session, open_session
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.state import Keeper, State, parse_state
from skyspan.providers.terraform.writing import prove_dead

_ROUNDS = 12
"""More than any configuration is deep in relations of relations; each round imports what the last one made known."""

_SETTLING_S = 5.0
"""How long after the last message what was created may still be missing in the cloud's own lists."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """A plan that also takes in what an interrupted command left. `imports` maps addresses to import ids, `again` are
    those of which nothing is left."""

    planned: Planned
    state: State | None
    imports: Mapping[str, str] = field(default_factory=dict)
    again: tuple[str, ...] = ()

    def told(self) -> str:
        """In words, for a plan's reason."""
        told = f"{len(self.imports)} to import that an interrupted apply made" if self.imports else ""
        lost = f"{len(self.again)} to make again" if self.again else ""
        return ", ".join(part for part in (told, lost) if part) or "to be settled after an interrupted apply"


async def plan_rescue(
    spec: TerraformSpec, ctx: ReadContext, configuration: Configuration, journal: Journal, *, only_imports: bool = False
) -> Rescued:
    """Plan against the state with everything imported that the interrupted command made.

    With `only_imports` the plan does nothing else, as far as the tool can do without. Raises StageError while the
    command still runs, and with a list when something cannot be told apart.
    """
    await prove_dead(ctx, journal)
    return await _Rescue(spec, ctx, configuration, journal).run(only_imports=only_imports)


class _Rescue:
    def __init__(self, spec: TerraformSpec, ctx: ReadContext, configuration: Configuration, journal: Journal) -> None:
        self._spec, self._ctx, self._configuration, self._journal = spec, ctx, configuration, journal
        self._imports: dict[str, str] = {}
        self._found: dict[str, str] = {}
        self._absent: frozenset[str] = frozenset(
            address for address, said in journal.settled.items() if not said
        )  # fmt: skip

    async def run(self, *, only_imports: bool) -> Rescued:
        sorted_out = await self._head_start()
        for _ in range(_ROUNDS):
            planned, state = await self._plan(sorted_out.tentative)
            if planned is None:
                continue
            known = state.known if state else {}
            journal = replace(self._journal, settled={**self._journal.settled, **self._found})
            sorted_out = triage(journal, known, creations_of(planned.shown, recognisable=False), self._absent)
            imports = dict(sorted_out.imports)
            last = imports == self._imports
            if last and not sorted_out.wanted:
                return await self._result(planned, state, sorted_out, only_imports)
            if sorted_out.wanted:
                # What cannot be told apart yet may be once its parents are imported, and their ids are known.
                await self._look_for(sorted_out.wanted, known, sorted_out.open if last else None)
            self._imports = {**imports, **self._found}
        msg = "what an interrupted apply left cannot be imported: each import makes another one necessary"
        raise StageError(msg, detail="\n".join(sorted(self._imports)))

    async def _head_start(self) -> Triage:
        """What the plan that was interrupted tells already; spares a plan, where it was one of this configuration."""
        journal = self._journal
        if journal.configuration != self._configuration.digest:
            return Triage({})
        async with open_session(self._spec, self._ctx, self._configuration) as session:
            state = self._without_destroyed(session, await session.state())
        known = state.known if state else {}
        found = triage(journal, known, journal.creations, self._absent)
        if found.wanted:
            await self._look_for(found.wanted, known, None)
        self._imports = {**found.imports, **self._found}
        return found

    async def _result(self, planned: Planned, state: State | None, found: Triage, only_imports: bool) -> Rescued:
        problems = dict(found.open)
        problems |= dict.fromkeys(found.waiting, "was made, but what to import it by is not known")
        if problems:
            raise self._doubt(problems, ())
        if only_imports and self._imports:
            again, state = await self._plan(frozenset(), tuple(sorted(self._imports)))
            planned = again or planned
        again_made = tuple(sorted({*found.again, *self._absent}))
        return Rescued(planned, state, dict(self._imports), again_made)

    async def _plan(
        self, tentative: frozenset[str], targets: tuple[str, ...] = ()
    ) -> tuple[Planned | None, State | None]:
        """A plan with the imports so far; None when some of the tentative ones turned out to be of nothing."""
        extra = {IMPORT_FILE: import_blocks(self._imports)} if self._imports else {}
        configuration = replace(self._configuration, extra=extra)
        async with open_session(self._spec, self._ctx, configuration) as session:
            state = self._without_destroyed(session, await session.state())
            try:
                return await session.plan(state, refresh=True, save=True, targets=targets), state
            except StageError as error:
                missing = missing_objects(error.detail, tentative)
                if not missing:
                    raise
                self._absent |= missing
                self._imports = {key: value for key, value in self._imports.items() if key not in missing}
                return None, state

    def _without_destroyed(self, session: Session, state: State | None) -> State | None:
        if state is None or session.keeper is Keeper.BACKEND:
            return state
        gone = self._journal.replaced(state.known)
        if not gone:
            return state
        return parse_state(without_destroyed(state.data, [(address, state.known[address]) for address in gone]))

    async def _look_for(
        self, wanted: tuple[Wanted, ...], known: Mapping[str, str], open_: Mapping[str, str] | None
    ) -> None:
        """Look for them. With `open_` (what nobody can tell so far) it is the last time: what stays unclear raises."""
        rest = self._journal.at + _SETTLING_S - self._ctx.clock.now()
        if 0 < rest <= _SETTLING_S:
            await self._ctx.clock.sleep(rest)
        asked = questions(wanted)
        found: dict[tuple[str, str], tuple[Found, ...]] = {}
        together = [item for item in asked if not item.alone]
        for group in [*([together] if together else []), *([item] for item in asked if item.alone)]:
            found |= await self._ask(group)
        ours = frozenset({*known.values(), *self._imports.values(), *self._journal.made.values()})
        settled: Settled = settle(wanted, found, ours)
        if open_ is not None and (settled.open or settled.unclear):
            said = dict.fromkeys(settled.open, "was being created; more than one object may be it")
            raise self._doubt({**open_, **said}, settled.unclear)
        if settled.unclear and open_ is None:
            return
        self._found |= settled.imports
        self._absent |= frozenset(settled.absent)

    async def _ask(self, asked: list[Asked]) -> Mapping[tuple[str, str], tuple[Found, ...]]:
        attempts = [holder.attempt for holder in self._journal.holders]
        blocks, targets = question_blocks(asked, attempts)
        configuration = replace(self._configuration, extra={LOOKUP_FILE: blocks})
        async with open_session(self._spec, self._ctx, configuration) as session:
            state = await session.state()
            try:
                planned = await session.plan(state, refresh=False, save=True, targets=targets)
            except StageError as error:
                if all(item.alone for item in asked) and is_nothing_found(error.detail):
                    return {}
                raise
        return answers(planned.shown, asked)

    def _doubt(self, problems: Mapping[str, str], unclear: tuple[str, ...]) -> StageError:
        place = self._ctx.address
        return in_doubt(problems, unclear, place.name, place.deployment.name)
