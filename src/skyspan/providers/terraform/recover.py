"""Plans what an interrupted command left: proves it dead, imports what it made, looks for what was under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from skyspan.contracts.context import ReadContext
from skyspan.model.error import StageError
from skyspan.providers.terraform.configuration import IMPORT_FILE, LOOKUP_FILE, Configuration
from skyspan.providers.terraform.import_ids import import_blocks
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.lookup import (
    Answers,
    Asked,
    Found,
    Wanted,
    answers,
    bearing_tag,
    is_askable,
    question_blocks,
    questions,
    refused,
    seeing_environment,
    settle,
)
from skyspan.providers.terraform.rescue import (
    Triage,
    creations_of,
    in_doubt,
    missing_objects,
    replaced_by_import,
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
        self._tagged: frozenset[tuple[str, str]] = frozenset()
        self._absent = frozenset(address for address, said in journal.settled.items() if not said)

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
        if not only_imports:
            problems |= self._replaced(planned)
        ours = self._ours(state.known if state else {})
        strays = [each for each in self._tagged if each[1] not in ours]
        if problems or strays:
            raise self._doubt(problems, strays)
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

    def _replaced(self, planned: Planned) -> dict[str, str]:
        """Which imports would replace what they take in, though nobody has said so."""
        as_planned = self._journal.configuration == self._configuration.digest
        replaced = replaced_by_import(planned.shown, self._journal.settled, as_planned=as_planned)
        return {
            address: f"exists as {self._imports[address]}; its {names} is not read back as planned, so that to import"
            " it is to replace it"
            for address, names in replaced.items()
            if address in self._imports
        }

    def _ours(self, known: Mapping[str, str]) -> frozenset[str]:
        """The ids of all that belongs to a resource already."""
        others = (known, self._imports, self._journal.made, self._journal.settled)
        return frozenset(id_ for ids in others for id_ in ids.values())

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
        """Look for them. With `open_` (what nobody can tell so far) nothing new will be known: if then nothing more can
        be told, it raises."""
        rest = self._journal.at + _SETTLING_S - self._ctx.clock.now()
        if 0 < rest <= _SETTLING_S:
            await self._ctx.clock.sleep(rest)
        ready = tuple(item for item in wanted if is_askable(item))
        told = await self._answers(questions(ready))
        self._tagged |= bearing_tag(told)
        ours = self._ours(known)
        settled = settle(ready, told, ours, last=False)
        if open_ is not None and settled.nothing:
            settled = settle(ready, told, ours, last=True)
        self._found |= settled.imports
        self._absent |= frozenset(settled.absent)
        if open_ is None or not settled.nothing:
            return
        early = {item.address: "was being created; where is not known" for item in wanted if item not in ready}
        raise self._doubt({**open_, **early, **settled.open})

    async def _answers(self, asked: tuple[Asked, ...]) -> Answers:
        """What the provider finds. One question that fails fails them all, so those that did are left out then."""
        several: set[str] = set()
        while asked:
            try:
                return Answers(await self._ask(asked), frozenset(several))
            except StageError as error:
                failed = refused(error.detail, asked)
                if failed is None:
                    raise
                several |= {address for item, many in failed.items() if many for address in item.about}
                asked = tuple(item for item in asked if item not in failed)
        return Answers({}, frozenset(several))

    async def _ask(self, asked: tuple[Asked, ...]) -> Mapping[tuple[str, str], tuple[Found, ...]]:
        attempts = [holder.attempt for holder in self._journal.holders]
        blocks, targets = question_blocks(asked, attempts)
        configuration = replace(self._configuration, extra={LOOKUP_FILE: blocks})
        async with open_session(self._spec, self._ctx, configuration) as session:
            state = await session.state()
            environment = session.invocation.environment
            seeing = replace(session.invocation, environment={**environment, **seeing_environment(environment)})
            planned = await replace(session, invocation=seeing).plan(state, refresh=False, save=True, targets=targets)
        return answers(planned.shown, asked)

    def _doubt(self, problems: Mapping[str, str], strays: Sequence[tuple[str, str]] = ()) -> StageError:
        place = self._ctx.address
        return in_doubt(problems, place.name, place.deployment.name, ids=self._imports, strays=strays)
