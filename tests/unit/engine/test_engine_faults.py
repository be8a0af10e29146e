"""Crash points: the code names them all, and no effect is without one."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from skyspan.contracts.context import KeptWriter
from skyspan.contracts.store import DeploymentStore, LeaseStore, LogStore, RunStore, SecretStore
from skyspan.contracts.transport import Command, Completed, Effect, OnOutput, Transport
from skyspan.engine.faults import EFFECTS, Fault, FaultPlan
from skyspan.model.error import UsageError
from skyspan.transports.guarded import GuardedTransport
from skyspan.transports.keeper.link import KeeperLink

SOURCE = Path(__file__).resolve().parents[3] / "src" / "skyspan"

RUNS = (
    *sorted((SOURCE / "drivers").rglob("*.py")),
    *sorted((SOURCE / "attempts").rglob("*.py")),
    *sorted((SOURCE / "app").rglob("*.py")),
    *sorted((SOURCE / "transports" / "keeper").glob("transport.py")),
    SOURCE / "transports" / "guarded.py",
)
"""What carries a run out, and all that could come to: a new file is looked at from its first day."""

READS = frozenset(
    {
        *("cancel_requested", "deployment", "deployments", "events", "holder", "kept", "log", "run", "runs"),
        *("secret", "secret_names", "stage_records", "stage_runs", "get"),
        # Of the keeper.
        *("open", "close", "attach", "read", "records", "known_runs", "unfollow"),
    }
)
"""Methods of the store, of what is kept and of the keeper that leave nothing behind."""

ALONE = {
    "request_cancel": "one write of a verb that is no run: it happened or it did not",
    "forget_deployment": "one write of a verb that is no run",
    "put_secret": "one write of a verb that is no run",
    "remove_secret": "one write of a verb that is no run",
    "signal": "follows from what is durable and is asked for again, and a second signal is no other",
}

EXEMPT = {
    "app/holding.py:_acquired": "between the points of `held`, its only caller",
    "app/runs.py:_sweep": "only what an engine left that was killed at the close points",
    "app/traces.py:forget": "what was found of a dead engine's attempts; found again when it is not forgotten",
}
"""Where effects have no points, and why."""

UNMISTAKABLE = frozenset(EFFECTS) - {"append", "put", "remove", "start", "forget"}
"""Names that mean nothing else anywhere."""

AWAITED = frozenset({"append", "put", "remove"})
"""Names that mean something else only where nobody awaits it: on lists, files and tasks."""

OWNERS = frozenset({"store", "kept", "link", "process"})


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in RUNS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE)}:{node.name}", node


def effects(function: ast.AST) -> Iterator[tuple[str, int]]:
    """The effects that a function has or passes on, with their lines."""
    awaited = {
        id(node.value.func)
        for node in ast.walk(function)
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call)
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in EFFECTS:
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            surely = node.attr in UNMISTAKABLE or (node.attr in AWAITED and id(node) in awaited)
            if surely or name.lstrip("_") in OWNERS:
                yield node.attr, node.lineno


def points(function: ast.AST) -> list[tuple[Fault, int]]:
    """The crash points that a function passes, with their lines."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.lstrip("_") == "reached":
                point = node.args[0]
                passed = Fault[point.attr] if isinstance(point, ast.Attribute) else Fault(ast.literal_eval(point))
                found.append((passed, node.lineno))
    return found


def bare(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The effects of a function that are not between their points."""
    passed = points(function)
    for effect, line in effects(function):
        before, after = EFFECTS[effect]
        if not any(point is before and at < line for point, at in passed):
            yield f"{effect} in line {line} without {before.value}"
        if after is not None and not any(point is after and at > line for point, at in passed):
            yield f"{effect} in line {line} without {after.value}"


def exempt(where: str) -> bool:
    return where in EXEMPT or where.partition(":")[0] + ":" in EXEMPT


def test_every_effect_of_a_run_is_between_its_two_crash_points() -> None:
    found = []
    for where, function in functions():
        # One that is called like an effect passes it on: those who call it are looked at.
        passes_on = function.name in EFFECTS and not points(function)
        if not (passes_on or exempt(where)):
            found += [f"{where}: {wrong}: it may not be killed there on purpose" for wrong in bare(function)]
    assert not found, "\n".join(found)


def test_every_method_that_could_have_an_effect_is_known() -> None:
    """A new one has to be given its crash points, or a word why it needs none."""
    owners = (DeploymentStore, RunStore, LeaseStore, LogStore, SecretStore, KeptWriter, KeeperLink)
    methods = {name for owner in owners for name in dir(owner) if not name.startswith("_") and callable_of(owner, name)}
    known = {*EFFECTS, *READS, *ALONE}
    assert methods <= known, f"give them crash points: {sorted(methods - known)}"
    assert known - methods == {"start"}, "what is gone is not to be listed"


def callable_of(owner: type, name: str) -> bool:
    return callable(getattr(owner, name))


def test_what_a_stage_keeps_is_handed_out_with_its_crash_points_only() -> None:
    sources = {path: path.read_text() for path in SOURCE.rglob("*.py") if "testing" not in path.parts}
    openers = {str(path.relative_to(SOURCE)) for path, text in sources.items() if "store.kept(" in text}
    assert openers <= {"app/contexts.py", "app/state.py", "app/watching.py"}
    # Who watches reads only: under epoch 0 the store takes nothing.
    assert "store.kept(record.address, 0)" in sources[SOURCE / "app" / "watching.py"]
    assert "PointedKept(self.session.store.kept(" in sources[SOURCE / "app" / "contexts.py"]


def test_the_exemptions_are_needed() -> None:
    needed = {where for where, function in functions() if exempt(where) and list(bare(function))}
    used = {where if where in EXEMPT else where.partition(":")[0] + ":" for where in needed}
    assert used == set(EXEMPT)


NEW_EFFECTS = (
    "async def f(self):\n    await self._store.append(1)",
    "async def f(self):\n    await asyncio.gather(*map(self._log.append_log, blocks))",
    "async def f(self):\n    self.reached(Fault.COMMIT_BEFORE)\n    await ledger.append(1)",
    "async def f(reached):\n    reached('commit.after')\n    await ledger.append(1)\n    reached('commit.before')",
    "async def f(self):\n    self.reached('log.before')\n    await ledger.append(1)\n    self.reached('log.after')",
    "def f(self):\n    self._link.forget(key)",
    "async def f(kept):\n    await kept.put('name', b'')",
)


@pytest.mark.parametrize("source", NEW_EFFECTS)
def test_a_new_effect_without_its_points_is_seen(source: str) -> None:
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    assert list(bare(function))


def test_a_command_on_a_host_is_between_crash_points_and_a_question_is_not() -> None:
    passed: list[str] = []

    class Place:
        name = "gw"

        async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
            passed.append("run")
            return Completed(0)

    async def assured() -> None:
        passed.append("assured")

    async def both() -> None:
        place = GuardedTransport(cast(Transport, Place()), assured, passed.append)
        await place.run(Command(("true",), effect=Effect.READ))
        await place.run(Command(("true",)))

    asyncio.run(both())
    assert passed == ["run", "assured", "command.before", "run", "command.ended"]


def test_every_crash_point_is_passed_somewhere() -> None:
    passed = {point for _, function in functions() for point, _ in points(function)}
    assert passed == set(Fault)


def test_an_unknown_point_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as refused:
        FaultPlan("commit.behind")
    assert "commit.after" in refused.value.hint
    for wrong in ("commit.after:0", "commit.after:x"):
        with pytest.raises(UsageError):
            FaultPlan(wrong)


def test_the_planned_passage_is_the_last_thing_a_process_does(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        plan = FaultPlan("commit.after:2")
        for number in range(1, 5):
            plan.reach(Fault.COMMIT_BEFORE)
            (tmp_path / "passed").write_text(str(number))
            plan.reach(Fault.COMMIT_AFTER)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert (tmp_path / "passed").read_text() == "2"


def test_without_a_plan_nothing_happens() -> None:
    plan = FaultPlan()
    for point in Fault:
        plan.reach(point)
