"""The rules of `contracts.provider`, as tests that every provider passes by inheriting them.

    class TestMine(ProviderConformance):
        @pytest.fixture
        def case(self, tmp_path): return ProviderCase(provider=…, spec=…, changed=…, world=…, snapshot=…)

Needs pytest with pytest-asyncio in its `auto` mode. Failures are AssertionErrors that quote the rule.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.provider import RESERVED_SETTINGS, Provider, Spec
from skyspan.contracts.transport import Argument, Joined
from skyspan.model.change import Action, Change, Observation
from skyspan.model.documentation import documented
from skyspan.model.error import StageError
from skyspan.model.secret import Secret
from skyspan.model.value import masked, secrets_in
from skyspan.testing.conformance.source_rules import impurities, models_of, source_files
from skyspan.testing.gate import Died, Gate, deaths
from skyspan.testing.provider_world import ProviderWorld

_BEGINS_S = 1.0
"""An apply that is to be cancelled has touched something by then, or is cancelled while it prepares."""

_MOST_EFFECTS = 100
"""More effects than that in one apply are not interrupted one by one."""


@dataclass(frozen=True)
class ProviderCase:
    """One provider in its world.

    `spec` can be applied and destroyed; `changed` is another setting of the same thing. `snapshot` describes the real
    world (not what is kept, not the work folder) so that two looks can be compared. `secret_spec` holds a secret
    (default: `spec`, when that does). `secrets` are those that a provider gets from elsewhere than its spec.
    `failing_spec` holds a secret and cannot be applied, for providers whose failures are not those of a command.
    `slow_spec` takes long to apply, so that it can be cancelled. `restores` is false when destroying cannot bring back
    the world of before. Cancelling ends within `grace_s`. `files` are the provider's own source files, when they are
    not all those beside its class.
    """

    provider: Provider[Any]
    spec: Spec
    changed: Spec
    world: ProviderWorld
    snapshot: Callable[[], Any]
    secret_spec: Spec | None = None
    secrets: tuple[Secret, ...] = ()
    failing_spec: Spec | None = None
    slow_spec: Spec | None = None
    restores: bool = True
    grace_s: float = 20.0
    files: tuple[Path, ...] = ()

    async def observe(self, spec: Spec | None = None, ctx: ReadContext | None = None) -> Observation:
        """What is there."""
        seen = await self.provider.observe(spec or self.spec, ctx or self.world.reading())
        return Observation(**{name: getattr(seen, name) for name in seen.__slots__})

    async def planned(self, spec: Spec | None = None) -> Change:
        """What would be done now."""
        ctx = self.world.reading()
        return await self.provider.plan(spec or self.spec, await self.observe(spec, ctx), ctx)

    async def apply(self, spec: Spec | None = None, ctx: StageContext | None = None) -> Observation:
        """Look, plan, and carry out what was planned, as the engine does."""
        change = await self.planned(spec)
        if change.action is Action.NONE:
            return await self.observe(spec)
        return await self.provider.apply(spec or self.spec, change, ctx or self.world.writing())

    async def destroy(self, spec: Spec | None = None) -> None:
        """Remove it."""
        await self.provider.destroy(spec or self.spec, self.world.writing())

    async def settle(self, spec: Spec | None = None) -> None:
        """Apply, and demand that this is the end of it."""
        there = await self.apply(spec)
        assert there.exists, "after apply the thing exists"
        assert there.healthy, f"after apply it is healthy, but: {there.reason}"
        change = await self.planned(spec)
        assert change.action is Action.NONE, f"plan settles after apply, but says {change.action}: {change.reason}"


class ProviderConformance:
    """Every rule is one test. Inherit and give the fixture `case`; nothing of `spec` may exist yet."""

    def test_it_has_a_kind_and_a_strict_frozen_spec(self, case: ProviderCase) -> None:
        assert case.provider.kind, "a provider has a kind"
        assert issubclass(case.provider.spec, Spec), "its spec derives from contracts.provider.Spec"
        for model in models_of(case.provider.spec):
            assert model.model_config.get("frozen"), f"{model.__name__} is frozen"
            assert model.model_config.get("extra") == "forbid", f"{model.__name__} refuses unknown keys"
        try:
            case.provider.spec.model_validate({"no_such_setting_exists": 1})
        except ValidationError as error:
            assert any(item["type"] == "extra_forbidden" for item in error.errors()), "unknown keys are refused"
        assert json.dumps(case.provider.spec.model_json_schema()), "its spec has a JSON schema"

    def test_no_setting_is_called_by_a_word_that_is_skyspans_own(self, case: ProviderCase) -> None:
        names = {field.alias or name for name, field in case.provider.spec.model_fields.items()}
        assert not names & {*RESERVED_SETTINGS}
        assert case.provider.kind != "connection"

    def test_every_setting_is_documented(self, case: ProviderCase) -> None:
        silent = [
            f"{model.__name__}.{name}"
            for model in models_of(documented(case.provider.spec))
            for name, info in model.model_fields.items()
            if not (info.description or "").strip()
        ]
        assert not silent, f"every setting is documented by its docstring, but not {', '.join(silent)}"

    def test_time_chance_and_environment_come_only_from_the_context(self, case: ProviderCase) -> None:
        files = case.files or source_files(case.provider)
        found = [f"{path.name}:{line}: {what}" for path in files for line, what in impurities(path)]
        assert not found, f"time, randomness, environment and processes come only from the context: {found}"

    async def test_looking_at_what_was_never_applied_writes_nothing(self, case: ProviderCase) -> None:
        before = await _state(case)
        seen = await case.observe()
        assert not seen.exists, "what was never applied does not exist"
        change = await case.planned()
        assert change.action is Action.CREATE, f"what is absent is planned to be created, not {change.action}"
        assert await _state(case) == before, "observe and plan write nothing"

    async def test_looking_at_what_was_applied_writes_nothing(self, case: ProviderCase) -> None:
        await case.apply()
        before = await _state(case)
        first = await case.observe()
        second = await case.observe()
        assert first.fingerprint == second.fingerprint, "the fingerprint changes only when the real thing does"
        assert _plain(first) == _plain(second), "outputs change only when the real thing does"
        await case.planned()
        await case.planned(case.changed)
        assert await _state(case) == before, "observe and plan write nothing"

    async def test_two_plans_of_the_same_mean_the_same(self, case: ProviderCase) -> None:
        first, second = await case.planned(), await case.planned()
        assert first.meaning == second.meaning, "plans that would do the same have the same meaning"
        assert Change.restore(json.loads(json.dumps(first.record()))).meaning == first.meaning, "a plan can be stored"

    async def test_applying_makes_it_exist_and_the_plan_settles(self, case: ProviderCase) -> None:
        await case.settle()
        seen = await case.observe()
        assert seen.exists, "what was applied is observed"
        assert seen.healthy, f"what was applied is healthy, but: {seen.reason}"
        assert not seen.drifted, "what was just applied has not drifted"

    async def test_applying_twice_changes_once(self, case: ProviderCase) -> None:
        change = await case.planned()
        await case.provider.apply(case.spec, change, case.world.writing())
        once = await _look(case)
        await case.apply()
        assert await _look(case) == once, "a second apply finds nothing to do"
        await case.provider.apply(case.spec, change, case.world.writing())
        assert await _look(case) == once, "applying a plan that was carried out already changes nothing more"
        await case.settle()

    async def test_a_changed_setting_is_planned_and_settles(self, case: ProviderCase) -> None:
        await case.settle()
        change = await case.planned(case.changed)
        assert change.action.changes, "a changed setting is planned"
        assert change.reason, "a change says why"
        await case.settle(case.changed)
        assert (await case.planned()).action.changes, "changing it back is planned too"

    async def test_destroying_removes_it(self, case: ProviderCase) -> None:
        before = await _look(case)
        await case.settle()
        await case.destroy()
        _assert_restored(case, before, await _look(case), "destroy removes everything that apply made")
        assert not case.world.kept.data, f"destroy forgets what was kept, but not {sorted(case.world.kept.data)}"

    async def test_destroying_twice_succeeds(self, case: ProviderCase) -> None:
        await case.settle()
        await case.destroy()
        once = await _state(case)
        await case.destroy()
        assert await _state(case) == once, "the second destroy finds nothing to do"

    async def test_destroying_what_is_absent_succeeds(self, case: ProviderCase) -> None:
        before = await _state(case)
        await case.destroy()
        assert await _state(case) == before, "destroying what was never applied changes nothing"

    async def test_a_lost_work_folder_loses_nothing(self, case: ProviderCase) -> None:
        import shutil

        before = await _look(case)
        await case.settle()
        shutil.rmtree(case.world.work, ignore_errors=True)
        await case.settle()
        shutil.rmtree(case.world.work, ignore_errors=True)
        await case.destroy()
        _assert_restored(case, before, await _look(case), "destroy works without the work folder")

    async def test_outputs_are_json(self, case: ProviderCase) -> None:
        applied = await case.apply()
        for seen in (applied, await case.observe()):
            for name, output in seen.outputs.items():
                _assert_json(masked(output.value), name)

    async def test_an_apply_that_died_at_any_point_converges(self, case: ProviderCase) -> None:
        before = await _look(case)
        for gate in deaths(_MOST_EFFECTS, case.world.besides):
            await _die(case, gate)
            await case.settle()
            await case.destroy()
            _assert_restored(case, before, await _look(case), "destroy removes what a healed apply made")

    async def test_destroying_after_an_apply_that_died_at_any_point_removes_it(self, case: ProviderCase) -> None:
        before = await _look(case)
        for gate in deaths(_MOST_EFFECTS, case.world.besides):
            await _die(case, gate)
            await case.destroy()
            _assert_restored(case, before, await _look(case), "destroy removes what a dead apply left")

    async def test_a_destroy_that_died_at_any_point_can_be_repeated(self, case: ProviderCase) -> None:
        before = await _look(case)
        for gate in deaths(_MOST_EFFECTS, case.world.besides):
            await case.settle()
            try:
                await case.provider.destroy(case.spec, case.world.writing(gate))
            except Died:
                await case.destroy()
            _assert_restored(case, before, await _look(case), "a repeated destroy removes everything")

    async def test_cancelling_ends_in_time(self, case: ProviderCase) -> None:
        spec = case.slow_spec or case.spec
        change = await case.planned(spec)
        gate = Gate()
        task = asyncio.ensure_future(case.provider.apply(spec, change, case.world.writing(gate)))
        begun = asyncio.ensure_future(gate.begun.wait())
        await asyncio.wait({task, begun}, timeout=_BEGINS_S, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        task.cancel()
        _, late = await asyncio.wait({task}, timeout=case.grace_s)
        assert not late, f"cancelling ends within {case.grace_s:g} s"
        assert case.slow_spec is None or task.cancelled(), "a cancelled apply raises the cancellation, nothing else"
        if not task.cancelled():
            task.exception()
        await case.destroy(spec)

    async def test_no_secret_shows(self, case: ProviderCase) -> None:
        spec = case.secret_spec or case.spec
        texts = _secret_texts(case, spec)
        assert texts, "give the case a secret_spec that holds a secret"
        change = await case.planned(spec)
        seen = [await case.provider.apply(spec, change, case.world.writing()), await case.observe(spec)]
        again = await case.planned(spec)
        await case.destroy(spec)
        said = [case.world.report.said(), json.dumps([change.record(), again.record()], ensure_ascii=False)]
        for item in seen:
            said += [item.reason, item.fingerprint, repr(item.drift), repr(item.links)]
            shown = {name: output.shown() for name, output in item.outputs.items()}
            said.append(json.dumps(shown, ensure_ascii=False))
        _assert_clean(said, texts, "reports, plans, reasons and outputs that are not sensitive")
        _assert_commands_clean(case, texts)

    async def test_no_secret_shows_in_an_error(self, case: ProviderCase) -> None:
        spec = case.secret_spec or case.spec
        texts = _secret_texts(case, spec)
        words = ("it said: " + " ".join(texts)).encode()
        for number in itertools.count(1):
            gate = Gate(fail_at=(number, words))
            change = await case.planned(spec)
            try:
                await case.provider.apply(spec, change, case.world.writing(gate))
            except StageError as error:
                _assert_clean(list(error.record().values()), texts, "an error")
            await case.destroy(spec)
            if not gate.failed and gate.count < number:
                break
        if case.failing_spec is not None:
            await _assert_fails_cleanly(case, case.failing_spec)


async def _assert_fails_cleanly(case: ProviderCase, spec: Spec) -> None:
    texts = _secret_texts(case, spec)
    try:
        await case.apply(spec)
    except StageError as error:
        _assert_clean(list(error.record().values()), texts, "an error")
    else:
        raise AssertionError("failing_spec was to fail with a StageError")
    await case.destroy(spec)


async def _die(case: ProviderCase, gate: Gate) -> None:
    change = await case.planned()
    try:
        await case.provider.apply(case.spec, change, case.world.writing(gate))
    except Died:
        return


async def _look(case: ProviderCase) -> Any:
    seen = case.snapshot()
    return await seen if inspect.isawaitable(seen) else seen


async def _state(case: ProviderCase) -> tuple[Any, dict[str, bytes]]:
    return await _look(case), dict(case.world.kept.data)


def _plain(seen: Observation) -> dict[str, Any]:
    return {name: output.value for name, output in seen.outputs.items()}


def _assert_restored(case: ProviderCase, before: Any, after: Any, rule: str) -> None:
    if case.restores:
        assert after == before, rule


def _assert_json(value: Any, name: str) -> None:
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError) as error:
        raise AssertionError(f"output {name} is not JSON: {error}") from error
    assert same, f"output {name} does not survive being stored as JSON"


def _assert_clean(said: list[str], texts: tuple[str, ...], where: str) -> None:
    assert not [text for text in texts for part in said if text in part], f"a secret shows in {where}"


def _assert_commands_clean(case: ProviderCase, texts: tuple[str, ...]) -> None:
    for command in case.world.commands:
        parts = [part for argument in command.argv for part in _parts(argument)]
        hidden = any(isinstance(part, Secret) for part in parts)
        assert not hidden, f"a process list would show the secret in: {command.display()}"
        _assert_clean([part for part in parts if isinstance(part, str)], texts, "a command's arguments")
        _assert_clean([command.display(), repr(command)], texts, "a command's display")


def _parts(argument: Argument) -> tuple[str | Secret, ...]:
    return argument.parts if isinstance(argument, Joined) else (argument,)


def _secret_texts(case: ProviderCase, spec: Spec) -> tuple[str, ...]:
    return tuple(secret.reveal() for secret in (*secrets_in(spec.model_dump()), *case.secrets))
