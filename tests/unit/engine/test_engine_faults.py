"""Crash points: the code names them all, and no effect is without one."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyspan.engine.faults import Fault, FaultPlan
from skyspan.model.error import UsageError

SOURCE = Path(__file__).resolve().parents[3] / "src" / "skyspan"

RUNS = (
    *sorted((SOURCE / "drivers" / "local").glob("*.py")),
    *sorted(SOURCE / "app" / name for name in ("runs.py", "recovery.py", "holding.py", "contexts.py", "reporting.py")),
    SOURCE / "transports" / "keeper" / "transport.py",
)
"""What carries a run out."""

EFFECTS = frozenset(
    {"acquire", "append_log", "begin_run", "end_run", "forget", "put", "release", "renew", "save_deployment"}
)
"""Calls whose effect survives this process, besides those below, whose names mean other things elsewhere too."""

OWNED = frozenset({("store", "append"), ("process", "start"), ("kept", "remove")})

EXEMPT = frozenset(
    {
        # The dead owner's lease is given up on the way to our own, between the points of that.
        "_acquired",
        # Only what an engine that was killed at the close points left.
        "_sweep",
    }
)


def functions() -> Iterator[tuple[str, ast.AST]]:
    for path in RUNS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE)}:{node.name}", node


def called(function: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """The calls of attributes in a function: owner, name, call."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            yield name.lstrip("_"), node.func.attr, node


def points(function: ast.AST) -> list[str]:
    """The crash points that a function passes."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.lstrip("_") == "reached":
                point = node.args[0]
                found.append(Fault[point.attr].value if isinstance(point, ast.Attribute) else ast.literal_eval(point))
    return found


def test_every_effect_of_a_run_is_between_two_crash_points() -> None:
    bare = []
    for where, function in functions():
        effects = [name for owner, name, _ in called(function) if name in EFFECTS or (owner, name) in OWNED]
        if effects and len(points(function)) < 2 and where.partition(":")[2] not in EXEMPT:
            bare.append(f"{where} calls {', '.join(effects)} and may not be killed there on purpose")
    assert not bare, "\n".join(bare)


def test_every_crash_point_is_passed_somewhere_and_every_passage_is_one() -> None:
    passed = {point for _, function in functions() for point in points(function)}
    assert passed == {point.value for point in Fault}


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
