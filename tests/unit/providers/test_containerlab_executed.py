"""Which commands of a topology are run again because something stopped them the first time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from skyspan.contracts.transport import Completed
from skyspan.providers.containerlab.executed import stopped_commands
from skyspan.providers.containerlab.hosts import run_in_node
from skyspan.providers.containerlab.topology import topology_of
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport

ADDRESS = "ip addr add 10.1.0.1/30 dev eth1"
SCRIPT = "sh -c 'echo \"a b\" > /x; ip route'"
LAB = topology_of(
    {
        "name": "two",
        "topology": {
            "nodes": {
                "a": {"kind": "linux", "image": "x:1", "exec": [ADDRESS, SCRIPT, "cat __clabNodeDir__/f", "true"]},
                "b": {"kind": "linux", "image": "x:1", "exec": [ADDRESS]},
            }
        },
    }
)


def stopped(said: str) -> list[tuple[str, tuple[str, ...]]]:
    return list(stopped_commands(said, LAB, "/labs/clab-two"))


def failed(node: str, command: str, status: int) -> str:
    return f'06:48:52 ERRO Failed to execute command command={command} node={node} rc={status} stdout="" stderr=""\n'


def test_a_command_that_was_interrupted_is_known_by_node_and_words() -> None:
    said = (
        f'06:48:51 INFO Executed command node=b command="{ADDRESS}" stdout=""\n'
        + failed("a", f'"{ADDRESS}"', 130)
        + "06:48:52 INFO Adding host entries path=/etc/hosts\n"
    )
    assert stopped(said) == [("a", ("ip", "addr", "add", "10.1.0.1/30", "dev", "eth1"))]


def test_a_script_keeps_its_quotes_and_a_place_is_spelled_out() -> None:
    said = failed("a", r'"sh -c echo \"a b\" > /x; ip route"', 143) + failed("a", '"cat /labs/clab-two/a/f"', 129)
    script = ("sh", "-c", 'echo "a b" > /x; ip route')
    assert stopped(said + failed("a", "true", 130)) == [
        ("a", script),
        ("a", ("cat", "/labs/clab-two/a/f")),
        ("a", ("true",)),
    ]


@pytest.mark.parametrize("status", [1, 2, 126, 127, 137, 139])
def test_a_command_that_failed_by_itself_or_was_killed_is_not_run_again(status: int) -> None:
    assert stopped(failed("a", f'"{ADDRESS}"', status)) == []


def test_what_the_topology_does_not_have_is_not_run() -> None:
    assert stopped(failed("c", f'"{ADDRESS}"', 130) + failed("b", "true", 130)) == []
    assert stopped(failed("a", r'"odd \x07"', 130)) == []


def exits(*statuses: int) -> Iterable[Completed]:
    return [Completed(status) for status in statuses]


@pytest.mark.parametrize(
    ("statuses", "times"), [((0,), 1), ((130, 0), 2), ((130, 143, 130, 0), 3), ((1, 0), 1), ((137, 0), 1)]
)
async def test_a_command_is_repeated_while_something_stops_it_but_not_for_ever(
    tmp_path: Path, statuses: tuple[int, ...], times: int
) -> None:
    waiting = list(exits(*statuses))
    world = ProviderWorld(tmp_path, {"h": ScriptedTransport(lambda _: waiting.pop(0))})
    await run_in_node("h", "clab-two-a", ["ip", "route"], (), world.writing())
    assert len(waiting) == len(statuses) - times
    assert len(world.report.lines) == times
