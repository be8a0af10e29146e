"""The `terraform` provider: the verbs, each a short story over a session of the tool."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skyspan.contracts.context import KeptWriter, ReadContext, StageContext
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.diagnostic import Diagnostic, Position, Severity
from skyspan.model.error import Retry, SpecError, StageError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, digest, leaves
from skyspan.providers.masking import holds_secret
from skyspan.providers.terraform.configuration import Configuration, read_configuration
from skyspan.providers.terraform.console_links import console_links
from skyspan.providers.terraform.endpoint.vault import forget_all
from skyspan.providers.terraform.failure import is_stale
from skyspan.providers.terraform.journal import KEPT_JOURNAL, Journal
from skyspan.providers.terraform.parse import IMPORTED
from skyspan.providers.terraform.planned import (
    certain_outputs,
    drift_of,
    meaning_of,
    reason_of,
    resource_changes,
    stage_action,
)
from skyspan.providers.terraform.recover import Rescued, plan_rescue
from skyspan.providers.terraform.session import KEPT_LOCK_FILE, Planned, SavedPlan, Session, open_session
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.state import KEPT_ERRORED, NO_STATE, Keeper, State, decide_keeper, look
from skyspan.providers.terraform.tool import identify
from skyspan.providers.terraform.worktree import WorkTree, write_private
from skyspan.providers.terraform.writing import at_work, is_at_work, read_journal

KEPT_CONFIGURATION = "configuration"
KEPT_KEEPER = "keeper"


class TerraformProvider:
    """Drives OpenTofu or Terraform over a folder of configuration."""

    kind = "terraform"
    spec = TerraformSpec

    def sources(self, spec: TerraformSpec) -> tuple[str, ...]:
        """The source folder; what it names beside itself is seen by `observe`, as a pending change."""
        return (spec.source,)

    async def observe(self, spec: TerraformSpec, ctx: ReadContext) -> Observation:
        """One run of the tool that refreshes and compares; none at all where no state exists.

        A plan with refresh rather than a refresh-only one: the latter reports every attribute that a resource made
        later has changed in one made earlier, so a stage just applied would look drifted.
        """
        tree = WorkTree(ctx.work)
        tree.refreshed.unlink(missing_ok=True)
        kept = await look(ctx, tree.left_behind(spec.source))
        journal = await read_journal(ctx.kept)
        if not journal.empty and not await is_at_work(ctx.kept, journal):
            return _interrupted(kept or NO_STATE, journal, spec, ctx)
        configuration = await _configuration_to_observe(spec, ctx)
        if configuration is None:
            return Observation.absent("nothing was applied, and the source folder does not exist")
        keeper = await _same_keeper(spec, ctx, configuration)
        recorded = await ctx.kept.get(KEPT_KEEPER) is not None
        if keeper is Keeper.SKYSPAN and kept is None and not recorded:
            return Observation.absent("nothing was applied")
        async with open_session(spec, ctx, configuration) as session:
            state = (kept if keeper is Keeper.SKYSPAN else await session.state()) or NO_STATE
            planned = await session.plan(state, refresh=True, save=False)
        # A configuration may manage nothing at all; then nothing is all that there has to be.
        if state.empty and (planned.changes or not recorded):
            return Observation.absent("the state is empty")
        if not planned.heard.drifted:
            write_private(tree.refreshed, state.fingerprint.encode())
        return _observation(state, spec, ctx, planned)

    async def plan(self, spec: TerraformSpec, seen: Observation, ctx: ReadContext) -> Change:
        """What the tool plans, resource by resource; the plan itself travels as the change's payload, in memory."""
        configuration = read_configuration(ctx.folder, spec.source, ctx.work)
        _refuse_undeclared(spec, configuration)
        await _same_keeper(spec, ctx, configuration)
        journal = await read_journal(ctx.kept)
        if not journal.empty:
            rescued = await plan_rescue(spec, ctx, configuration, journal)
            return _rescue_change(rescued, _change(rescued.planned, rescued.state, spec, seen, ctx), journal)
        async with open_session(spec, ctx, configuration) as session:
            state = await session.state()
            planned = await session.plan(state, refresh=not _just_refreshed(session.tree, seen, state), save=True)
        return _change(planned, state, spec, seen, ctx)

    async def apply(self, spec: TerraformSpec, change: Change, ctx: StageContext) -> Observation:
        """Carry out the plan that comes with `change`; without one, or when it is stale, one of the same meaning."""
        configuration = read_configuration(ctx.folder, spec.source, ctx.work)
        _refuse_undeclared(spec, configuration)
        await _same_keeper(spec, ctx, configuration)
        saved = await _plan_to_carry_out(spec, ctx, configuration, change)
        async with open_session(spec, ctx, configuration) as session:
            await _record(session, ctx.kept)
            creations = saved.creations if saved else {}
            async with at_work(session, ctx, creations) as (writing, state):
                await _carry_out(writing, saved, change, state, ctx)
            after = await session.state()
        return _observation(after or NO_STATE, spec, ctx)

    async def destroy(self, spec: TerraformSpec, ctx: StageContext) -> None:
        """Destroy by the configuration that was applied, whatever has become of the source folder since.

        What an interrupted apply made and never saved is imported first, so that it is destroyed too.
        """
        state = await look(ctx, WorkTree(ctx.work).left_behind(spec.source))
        keeper = await ctx.kept.get(KEPT_KEEPER)
        backend = keeper is not None and keeper.decode() == Keeper.BACKEND
        journal = await read_journal(ctx.kept)
        if backend or not journal.empty or (state is not None and not state.empty):
            await self._destroy(spec, ctx, await _applied(spec, ctx), journal)
        await forget_all(ctx.kept)
        for name in (KEPT_JOURNAL, KEPT_ERRORED, KEPT_CONFIGURATION, KEPT_LOCK_FILE, KEPT_KEEPER):
            await ctx.kept.remove(name)

    async def _destroy(
        self, spec: TerraformSpec, ctx: StageContext, configuration: Configuration, journal: Journal
    ) -> None:
        saved = None
        if not journal.empty:
            rescued = await plan_rescue(spec, ctx, configuration, journal, only_imports=True)
            saved = rescued.planned.saved if rescued.imports else None
        creations = saved.creations if saved else {}
        async with open_session(spec, ctx, configuration) as session, at_work(session, ctx, creations) as (writing, _):
            if saved:
                heard = await writing.apply(saved)
                if not heard.completed.ok:
                    raise writing.failed("apply", heard)
            await writing.destroy()

    async def preflight(self, settings: Mapping[str, Any], ctx: ReadContext) -> tuple[Diagnostic, ...]:
        """A missing or unfit tool, a missing or empty source folder, a state that somebody else keeps there."""
        found: list[Diagnostic] = []
        choice, constraint = settings.get("tool", "auto"), settings.get("version", "")
        try:
            await identify(choice if choice in ("auto", "tofu", "terraform") else "auto", str(constraint), ctx)
        except ToolMissingError as error:
            found.append(_diagnostic("tool-missing", error))
        config = ctx.tools.settings.get("terraform_config")
        if config and not Path(config).is_file():
            missing = SpecError(f"the Terraform CLI configuration {config} does not exist",
                                hint="correct or remove the setting `terraform_config`")  # fmt: skip
            found.append(_diagnostic("setting", missing))
        source = settings.get("source")
        if isinstance(source, str) and "${{" not in source:
            found += _source_problems(source, settings, ctx)
        return tuple(found)


def _source_problems(source: str, settings: Mapping[str, Any], ctx: ReadContext) -> list[Diagnostic]:
    names = settings.get("variables")
    variables = dict.fromkeys(names) if isinstance(names, Mapping) else {}
    try:
        spec = TerraformSpec.model_validate({"source": source, "variables": variables})
        _refuse_undeclared(spec, read_configuration(ctx.folder, spec.source, ctx.work))
    except SpecError as error:
        return [_diagnostic("source", error)]
    except ValueError:
        return []  # The spec's own validation says it, with its position.
    if not (ctx.folder / source / "terraform.tfstate").is_file():
        return []
    summary = f"{source} has a terraform.tfstate of its own, which Skyspan does not use"
    hint = "what it holds would be created a second time: destroy it there first, or move it to a backend"
    return [Diagnostic("foreign-state", summary, Position(""), Severity.WARNING, hint=hint)]


def _refuse_undeclared(spec: TerraformSpec, configuration: Configuration) -> None:
    """The tools only warn of a value for a variable that is not declared, and then go on with its default."""
    declared = configuration.facts.variables | set(spec.override.get("variable", ()))
    for name in sorted(set(spec.variables) - declared):
        near = difflib.get_close_matches(name, declared, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it declares: {', '.join(sorted(declared)) or 'none'}"
        raise SpecError(f"{spec.source} declares no variable {name!r}", hint=hint)


def _diagnostic(code: str, error: StageError) -> Diagnostic:
    return Diagnostic(code, error.summary, Position(""), detail=error.detail, hint=error.hint)


async def _configuration_to_observe(spec: TerraformSpec, ctx: ReadContext) -> Configuration | None:
    """The source folder as it is; where that is gone, the configuration that was applied."""
    if (ctx.folder / spec.source).is_dir():
        return read_configuration(ctx.folder, spec.source, ctx.work)
    archive = await ctx.kept.get(KEPT_CONFIGURATION)
    return Configuration.unpack(archive) if archive is not None else None


async def _applied(spec: TerraformSpec, ctx: ReadContext) -> Configuration:
    archive = await ctx.kept.get(KEPT_CONFIGURATION)
    if archive is not None:
        return Configuration.unpack(archive)
    return read_configuration(ctx.folder, spec.source, ctx.work)


async def _same_keeper(spec: TerraformSpec, ctx: ReadContext, configuration: Configuration) -> Keeper:
    """Who keeps the state; raises SpecError when it was somebody else at apply: another state is another world."""
    keeper = decide_keeper(spec, configuration.facts, rehearsal=ctx.rehearsal)
    recorded = await ctx.kept.get(KEPT_KEEPER)
    if recorded is None or recorded.decode() == keeper:
        return keeper
    if keeper is Keeper.BACKEND:
        msg = f"{spec.source} now declares a {configuration.facts.backend!r} backend, but its state is kept by Skyspan"
        raise SpecError(msg, hint="set `backend: kept` to go on as before, or destroy the stage first")
    msg = f"{spec.source} was applied with a backend of its own, which it no longer declares"
    raise SpecError(msg, hint="put the backend block back, or destroy the stage before moving its state")


async def _record(session: Session, kept: KeptWriter) -> None:
    """Before anything is created: all that destroy needs."""
    wanted = {
        KEPT_CONFIGURATION: session.configuration.pack(),
        KEPT_LOCK_FILE: session.tree.lock_file(session.configuration),
        KEPT_KEEPER: session.keeper.value.encode(),
    }
    for name, data in wanted.items():
        if data is not None and await kept.get(name) != data:
            await kept.put(name, data)


async def _plan_to_carry_out(
    spec: TerraformSpec, ctx: StageContext, configuration: Configuration, change: Change
) -> SavedPlan | None:
    """The plan that came with the change; after an interrupted command, one that takes in what that left."""
    saved = change.payload if isinstance(change.payload, SavedPlan) else None
    if saved and saved.configuration == configuration.digest:
        return saved
    journal = await read_journal(ctx.kept)
    if journal.empty:
        return None
    rescued = await plan_rescue(spec, ctx, configuration, journal)
    if rescued.planned.saved is None:
        return None
    _refuse_another_meaning(rescued.planned, change)
    return rescued.planned.saved


async def _carry_out(
    session: Session, saved: SavedPlan | None, change: Change, state: State | None, ctx: StageContext
) -> None:
    if saved:
        heard = await session.apply(saved)
        if heard.completed.ok:
            return
        if not is_stale(heard.listener.diagnoses):
            raise session.failed("apply", heard)
        ctx.report.line("the plan no longer fits the state: planning again")
    planned = await session.plan(state, refresh=True, save=True)
    if planned.saved is None:
        session.settled()
        return
    if session.recorder and not session.recorder.journal.empty:
        msg = "the plan no longer fits what an interrupted apply left"
        raise StageError(msg, hint="it has to be planned again", retry=Retry.NOW)
    _refuse_another_meaning(planned, change)
    heard = await session.apply(planned.saved)
    if not heard.completed.ok:
        raise session.failed("apply", heard)


def _refuse_another_meaning(planned: Planned, change: Change) -> None:
    if change.meaning and meaning_of(planned.shown) != change.meaning:
        msg = "what would be done now is not what was planned"
        detail = "\n".join(f"{item.address}: {item.action.value}" for item in resource_changes(planned.heard.planned))
        raise StageError(msg, detail=detail, hint="it has to be planned again", retry=Retry.NOW)


def _rescue_change(rescued: Rescued, change: Change, journal: Journal) -> Change:
    """The change of a plan after an interrupted apply: it is never `none`, as the journal has to be settled."""
    if change.action is Action.NONE:
        return replace(change, action=Action.UPDATE, reason=rescued.told(), meaning="")
    others = [item for item in change.resources if item.note != IMPORTED]
    return replace(change, reason=f"{rescued.told()}; {reason_of(others, ())}" if others else rescued.told())


def _interrupted(state: State, journal: Journal, spec: TerraformSpec, ctx: ReadContext) -> Observation:
    """What stands after a command was killed: more than its state says."""
    orphans, doubts = journal.orphans(state.known), journal.doubts(state.known)
    said = [f"{len(orphans)} made and not in the state"] if orphans else []
    said += [f"{len(doubts)} under way"] if doubts else []
    return Observation(
        exists=True,
        healthy=False,
        drifted=True,
        fingerprint=f"{state.fingerprint}:interrupted:{digest([sorted(orphans), list(doubts)])[:16]}",
        reason=f"an apply was interrupted: {', '.join(said) or 'its journal is still open'}",
        outputs=_told(state.outputs, spec, ctx),
        drift=tuple(ResourceChange(address, Action.CREATE, "interrupted") for address in sorted({*orphans, *doubts})),
    )


def _just_refreshed(tree: WorkTree, seen: Observation, state: State | None) -> bool:
    """Whether the observation found the state to be exactly what is real; then asking all APIs again is needless."""
    if state is None or not seen.exists:
        return False
    try:
        return tree.refreshed.read_text() == state.fingerprint
    except OSError:
        return False


def _change(planned: Planned, state: State | None, spec: TerraformSpec, seen: Observation, ctx: ReadContext) -> Change:
    exists = state is not None and not state.empty
    if not planned.changes and not exists and not seen.exists:
        return Change(Action.CREATE, "to be recorded: the configuration manages nothing", meaning="nothing")
    if not planned.changes:
        outputs = _told(state.outputs, spec, ctx) if state else seen.outputs
        return Change(Action.NONE, "nothing to change", based_on=seen.fingerprint, outputs=outputs)
    resources = resource_changes(planned.heard.planned)
    return Change(
        stage_action(resources, exists=exists),
        reason_of(resources, planned.heard.outputs),
        resources,
        based_on=seen.fingerprint,
        meaning=meaning_of(planned.shown),
        outputs=_told(certain_outputs(planned.shown), spec, ctx),
        payload=planned.saved,
    )


def _observation(state: State, spec: TerraformSpec, ctx: ReadContext, planned: Planned | None = None) -> Observation:
    drift: tuple[ResourceChange, ...] = ()
    reason = ""
    fingerprint = state.fingerprint
    if planned and planned.changes:
        drift, reason = drift_of(planned.heard.planned, planned.heard.drifted, planned.heard.outputs)
        fingerprint += ":" + digest([change.record() for change in drift])[:16]
    tainted = [instance.address for instance in state.instances if instance.tainted]
    if tainted:
        reason = f"left half made: {', '.join(tainted)}"
    return Observation(
        exists=True,
        healthy=not tainted,
        drifted=bool(planned and planned.changes),
        fingerprint=fingerprint,
        reason=reason,
        outputs=_told(state.outputs, spec, ctx),
        drift=drift,
        # Stand-ins of a rehearsal are in no console.
        links=() if ctx.rehearsal else console_links(state.instances),
    )


def _told(outputs: Mapping[str, OutputValue], spec: TerraformSpec, ctx: ReadContext) -> Mapping[str, OutputValue]:
    """The outputs. One that holds a secret of the settings is sensitive, whether declared so or not; all sensitive ones
    are masked in everything that is said from now on."""
    told = {}
    for name, output in outputs.items():
        texts = [leaf if isinstance(leaf, str) else json.dumps(leaf) for leaf in leaves(output.value) if _tells(leaf)]
        sensitive = output.sensitive or any(holds_secret(text, spec.secrets) for text in texts)
        told[name] = OutputValue(output.value, sensitive)
        for text in texts if sensitive else ():
            ctx.report.conceal(Secret(text))
    return told


def _tells(leaf: object) -> bool:
    return leaf is not None and leaf != "" and not isinstance(leaf, bool)
