"""The provider suite catches planted faults, each by the rule that was broken, and finds none in a sound provider."""

from __future__ import annotations

import inspect
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.provider import Provider, Spec
from skyspan.contracts.transport import Command, Effect
from skyspan.model.change import Action, Change, Observation, ResourceChange
from skyspan.model.error import ToolFailedError
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, masked
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class FileSpec(Spec):
    """A file with a text in it."""

    text: str | Secret
    """What stands in the file."""


class FileProvider:
    """Keeps a file, by way of a shell: a sound provider, and the one that faults are planted in."""

    kind = "file"
    spec: type[Spec] = FileSpec

    def shell(self, script: str, ctx: ReadContext, effect: Effect, text: str | Secret = "") -> Command:
        return Command(("sh", "-euc", script), env={"TEXT": text}, cwd=str(ctx.folder), effect=effect)

    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        script = '[ -e thing ] || exit 9; [ "$(cat thing)" = "$TEXT" ]'
        done = await ctx.places.reach(None).query(self.shell(script, ctx, Effect.READ, spec.text))
        if done.exit_code == 9:
            return Observation.absent("there is no file")
        return Observation(
            True, drifted=not done.ok, fingerprint=str(done.exit_code), outputs={"file": OutputValue("thing")}
        )

    async def plan(self, spec: Any, seen: Observation, ctx: ReadContext) -> Change:
        if not seen.exists:
            return Change(
                Action.CREATE, "absent", (ResourceChange("thing", Action.CREATE),), meaning=f"w {masked(spec.text)}"
            )
        if seen.drifted:
            return Change(Action.UPDATE, "the text differs", meaning=f"w {masked(spec.text)}")
        return Change.none(seen)

    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        command = self.shell('printf %s "$TEXT" > thing.new; mv thing.new thing', ctx, Effect.WRITE, spec.text)
        done = await ctx.places.reach(None).run(command, ctx.report.output)
        if not done.ok:
            raise ToolFailedError("the file could not be written")
        return await self.observe(spec, ctx)

    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        await ctx.places.reach(None).run(self.shell("rm -f thing thing.new", ctx, Effect.WRITE))


class DestroysOnlyOnce(FileProvider):
    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        done = await ctx.places.reach(None).run(self.shell("rm thing", ctx, Effect.WRITE))
        if not done.ok:
            raise ToolFailedError("there is nothing to destroy")


class DestroysNothing(FileProvider):
    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        return


class NeverSettles(FileProvider):
    async def plan(self, spec: Any, seen: Observation, ctx: ReadContext) -> Change:
        change = await super().plan(spec, seen, ctx)
        return Change(Action.UPDATE, "to be sure", meaning="w") if change.action is Action.NONE else change


class ObserveWrites(FileProvider):
    """Writes behind the transport's back, so that only the world shows it."""

    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        (ctx.folder / "seen").write_text("x", encoding="ascii")
        return await super().observe(spec, ctx)


class ObserveWritesByCommand(FileProvider):
    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        await ctx.places.reach(None).query(self.shell("echo x > seen", ctx, Effect.WRITE))
        return await super().observe(spec, ctx)


class PlanWrites(FileProvider):
    async def plan(self, spec: Any, seen: Observation, ctx: ReadContext) -> Change:
        (ctx.folder / "planned").write_text("x", encoding="ascii")
        return await super().plan(spec, seen, ctx)


class Appends(FileProvider):
    """Applying twice changes twice."""

    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        await ctx.places.reach(None).run(self.shell("echo x >> log", ctx, Effect.WRITE))
        return await super().apply(spec, change, ctx)

    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        await super().destroy(spec, ctx)
        await ctx.places.reach(None).run(self.shell("rm -f log", ctx, Effect.WRITE))


class StumblesOverItsOwnRemains(FileProvider):
    """Cannot go on after it died between its two commands."""

    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        done = await ctx.places.reach(None).run(self.shell("mkdir busy", ctx, Effect.WRITE))
        if not done.ok:
            raise ToolFailedError("somebody else is at it")
        await super().apply(spec, change, ctx)
        await ctx.places.reach(None).run(self.shell("rmdir busy", ctx, Effect.WRITE))
        return await self.observe(spec, ctx)

    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        await super().destroy(spec, ctx)
        await ctx.places.reach(None).run(self.shell("[ ! -e busy ] || rmdir busy", ctx, Effect.WRITE))


class ForgetsWhatAHalfAppliedOneLeft(FileProvider):
    """Writes a second file last, and destroy trusts that the first one tells of both."""

    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        await ctx.places.reach(None).run(self.shell("echo x > extra", ctx, Effect.WRITE))
        return await super().apply(spec, change, ctx)

    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        await ctx.places.reach(None).run(self.shell("if [ -e thing ]; then rm thing extra; fi", ctx, Effect.WRITE))


class TellsItsSecret(FileProvider):
    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        ctx.report.line(f"writing {spec.text.reveal() if isinstance(spec.text, Secret) else spec.text}")
        return await super().apply(spec, change, ctx)


class PassesItsSecretAsAnArgument(FileProvider):
    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        command = Command(("sh", "-c", 'printf %s "$1" > thing', "sh", spec.text), cwd=str(ctx.folder))
        await ctx.places.reach(None).run(command)
        return await self.observe(spec, ctx)


class QuotesItsSecretInAnError(FileProvider):
    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        done = await ctx.places.reach(None).run(self.shell('printf %s "$TEXT" > thing', ctx, Effect.WRITE, spec.text))
        if not done.ok:
            raise ToolFailedError("the file could not be written", detail=done.last_words())
        return await self.observe(spec, ctx)


class PublishesItsSecret(FileProvider):
    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        seen = await super().observe(spec, ctx)
        text = spec.text.reveal() if isinstance(spec.text, Secret) else spec.text
        return Observation(seen.exists, drifted=seen.drifted, reason=seen.reason, outputs={"text": OutputValue(text)})


class HasOutputsThatAreNotJson(FileProvider):
    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        seen = await super().observe(spec, ctx)
        outputs = {"file": OutputValue(Path("thing"))} if seen.exists else {}
        return Observation(seen.exists, drifted=seen.drifted, reason=seen.reason, outputs=outputs)


class HasATupleForAnOutput(FileProvider):
    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        seen = await super().observe(spec, ctx)
        outputs = {"files": OutputValue({1: "thing"})} if seen.exists else {}
        return Observation(seen.exists, drifted=seen.drifted, reason=seen.reason, outputs=outputs)


class ChangesItsFingerprintForNothing(FileProvider):
    chance = random.Random(7)

    async def observe(self, spec: Any, ctx: ReadContext) -> Observation:
        seen = await super().observe(spec, ctx)
        return Observation(seen.exists, drifted=seen.drifted, fingerprint=str(self.chance.random()))


class IgnoresChanges(FileProvider):
    async def plan(self, spec: Any, seen: Observation, ctx: ReadContext) -> Change:
        return Change.none(seen) if seen.exists else await super().plan(spec, seen, ctx)


class DependsOnItsWorkFolder(FileProvider):
    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        ctx.work.mkdir(exist_ok=True)
        (ctx.work / "made").write_text("x", encoding="ascii")
        return await super().apply(spec, change, ctx)

    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        if (ctx.work / "made").exists():
            await super().destroy(spec, ctx)


class IgnoresCancellation(FileProvider):
    async def apply(self, spec: Any, change: Change, ctx: StageContext) -> Observation:
        import asyncio

        writing = asyncio.ensure_future(super().apply(spec, change, ctx))
        while not writing.done():
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.Event().wait()
        return await writing


class MeansSomethingElseEachTime(FileProvider):
    def __init__(self) -> None:
        self.plans = 0

    async def plan(self, spec: Any, seen: Observation, ctx: ReadContext) -> Change:
        self.plans += 1
        return replace(await super().plan(spec, seen, ctx), meaning=f"plan {self.plans}")


class LeavesATombstone(FileProvider):
    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        await ctx.places.reach(None).run(self.shell("rm -f thing; echo x > gone", ctx, Effect.WRITE))


class RemovesItsProofFirst(ForgetsWhatAHalfAppliedOneLeft):
    """Destroys in two steps, and takes the first one for both when it is repeated."""

    async def destroy(self, spec: Any, ctx: StageContext) -> None:
        place = ctx.places.reach(None)
        proof = await place.run(self.shell("rm thing", ctx, Effect.WRITE))
        if proof.ok:
            await place.run(self.shell("rm -f extra", ctx, Effect.WRITE))


class SilentSpec(FileSpec):
    """One setting says nothing about itself."""

    mode: int = 0o644


class HasASilentSetting(FileProvider):
    spec = SilentSpec


class LooseSpec(Spec, extra="ignore"):
    """Swallows what it does not know."""

    text: str | Secret = Field(description="What stands in the file.")


class SwallowsUnknownSettings(FileProvider):
    spec = LooseSpec


class BorrowingSpec(FileSpec):
    """One setting is called by a word that names a connection."""

    template: str = ""
    """What the file is made of."""


class TakesAWordThatIsNotItsOwn(FileProvider):
    spec = BorrowingSpec


FAULTS: dict[type[FileProvider], str] = {
    DestroysOnlyOnce: "test_destroying_twice_succeeds",
    DestroysNothing: "test_destroying_removes_it",
    NeverSettles: "test_applying_makes_it_exist_and_the_plan_settles",
    ObserveWrites: "test_looking_at_what_was_never_applied_writes_nothing",
    ObserveWritesByCommand: "test_looking_at_what_was_never_applied_writes_nothing",
    PlanWrites: "test_looking_at_what_was_never_applied_writes_nothing",
    Appends: "test_applying_twice_changes_once",
    StumblesOverItsOwnRemains: "test_an_apply_that_died_at_any_point_converges",
    ForgetsWhatAHalfAppliedOneLeft: "test_destroying_after_an_apply_that_died_at_any_point_removes_it",
    TellsItsSecret: "test_no_secret_shows",
    PassesItsSecretAsAnArgument: "test_no_secret_shows",
    QuotesItsSecretInAnError: "test_no_secret_shows_in_an_error",
    PublishesItsSecret: "test_no_secret_shows",
    HasOutputsThatAreNotJson: "test_outputs_are_json",
    HasATupleForAnOutput: "test_outputs_are_json",
    ChangesItsFingerprintForNothing: "test_looking_at_what_was_applied_writes_nothing",
    IgnoresChanges: "test_a_changed_setting_is_planned_and_settles",
    DependsOnItsWorkFolder: "test_a_lost_work_folder_loses_nothing",
    IgnoresCancellation: "test_cancelling_ends_in_time",
    MeansSomethingElseEachTime: "test_two_plans_of_the_same_mean_the_same",
    LeavesATombstone: "test_destroying_what_is_absent_succeeds",
    RemovesItsProofFirst: "test_a_destroy_that_died_at_any_point_can_be_repeated",
    HasASilentSetting: "test_every_setting_is_documented",
    TakesAWordThatIsNotItsOwn: "test_no_setting_is_called_by_a_word_that_is_skyspans_own",
    SwallowsUnknownSettings: "test_it_has_a_kind_and_a_strict_frozen_spec",
}

SOUND = "import asyncio\n\nasync def wait(ctx):\n    await ctx.clock.sleep(1)\n    return ctx.clock.monotonic()\n"

IMPURE = {
    "chance": "import random\n",
    "the system's time": "import time\nNOW = time.time()\n",
    "the system's date": "import datetime\nNOW = datetime.datetime.now()\n",
    "time by another name": "from time import monotonic\n",
    "the environment": "import os\nHOME = os.environ['HOME']\n",
    "processes": "import subprocess\n",
}


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport(ENV)
    yield transport
    await transport.close()


@pytest.fixture
def case_of(tmp_path: Path, here: LocalTransport) -> Callable[..., ProviderCase]:
    source = tmp_path / "source.py"
    source.write_text(SOUND, encoding="utf-8")

    def make(provider: Provider[Any], name: str = "world") -> ProviderCase:
        world = ProviderWorld(tmp_path / name, {None: here})
        return ProviderCase(
            provider=provider,
            spec=provider.spec.model_validate({"text": "one"}),
            changed=provider.spec.model_validate({"text": "other"}),
            secret_spec=provider.spec.model_validate({"text": Secret("do-not-tell")}),
            world=world,
            snapshot=lambda: {path.name: path.is_file() and path.read_text() for path in world.folder.iterdir()},
            grace_s=2.0,
            files=(source,),
        )

    return make


async def run_rule(rule: str, case: ProviderCase) -> None:
    result = getattr(ProviderConformance(), rule)(case)
    if inspect.isawaitable(result):
        await result


def rules() -> list[str]:
    return [name for name in dir(ProviderConformance) if name.startswith("test_")]


async def test_a_sound_provider_passes_every_rule(case_of: Callable[..., ProviderCase]) -> None:
    for rule in rules():
        await run_rule(rule, case_of(FileProvider(), rule))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_planted_fault_is_caught(fault: type[FileProvider], case_of: Callable[..., ProviderCase]) -> None:
    with pytest.raises((AssertionError, ToolFailedError, PermissionError)):
        await run_rule(FAULTS[fault], case_of(fault()))


@pytest.mark.parametrize("what", IMPURE)
async def test_a_provider_that_takes_what_its_context_did_not_give_is_caught(
    what: str, case_of: Callable[..., ProviderCase], tmp_path: Path
) -> None:
    case = case_of(FileProvider())
    (tmp_path / "source.py").write_text(IMPURE[what], encoding="utf-8")
    with pytest.raises(AssertionError, match="only from the context"):
        await run_rule("test_time_chance_and_environment_come_only_from_the_context", case)


def test_every_rule_has_a_planted_fault() -> None:
    planted_as_source = {"test_time_chance_and_environment_come_only_from_the_context"}
    assert set(rules()) == set(FAULTS.values()) | planted_as_source
