"""SIGKILL at every crash point: whatever comes next finds the run, finishes it, and does nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.chaos import SIGKILL, Site, reference_dag
from tests.support.cli import Cli
from tests.support.postgres import PostgresServer

from skyspan.engine.faults import Fault

pytestmark = pytest.mark.chaos

STAGES = [f"s{number}" for number in range(40)]

# Passed once in a run, and passed by every stage; writing of several stages is gathered in one commit.
_ONCE = tuple(point for point in Fault if point.value.split(".")[0] in {"lease", "register", "run", "close", "release"})
_COMMIT = tuple(point for point in Fault if point.value.split(".")[0] in {"commit", "log"})
_RENEW = (Fault.RENEW_BEFORE, Fault.RENEW_AFTER)
_EACH = tuple(point for point in Fault if point not in (*_ONCE, *_COMMIT, *_RENEW))
PASSAGES = [
    *((point, 1) for point in (*_ONCE, *_RENEW)),
    *((point, count) for point in _COMMIT for count in (1, 2)),
    *((point, 6) for point in _COMMIT if point.value.startswith("commit")),
    *((point, count) for point in _EACH for count in (2, 40)),
]


def test_every_crash_point_is_visited() -> None:
    assert {point for point, _ in PASSAGES} == set(Fault)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


@pytest.mark.parametrize(("point", "count"), PASSAGES, ids=str)
def test_a_run_killed_anywhere_is_finished_and_does_nothing_twice(cli: Cli, point: Fault, count: int) -> None:
    site = Site(cli, cli.compose(reference_dag(), "dag"))
    if point in _RENEW:
        cli.env["SKYSPAN_LEASE_SECONDS"] = "0.3"
    _killed(site, point, count)
    site.converge()
    site.assert_sound(STAGES)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as made:
        yield made


_SAMPLE = [
    (Fault.RUN_AFTER, 1),
    (Fault.COMMIT_BEFORE, 3),
    (Fault.COMMIT_AFTER, 6),
    (Fault.INTENT_AFTER, 11),
    (Fault.COMMAND_BEFORE, 11),
    (Fault.COMMAND_STARTED, 11),
    (Fault.COMMAND_ENDED, 11),
    (Fault.KEPT_AFTER, 11),
    (Fault.ACK_BEFORE, 40),
    (Fault.CLOSE_BEFORE, 1),
]


@pytest.mark.parametrize(("point", "count"), _SAMPLE, ids=str)
def test_the_same_holds_on_postgresql(cli: Cli, server: PostgresServer, point: Fault, count: int) -> None:
    url = cli.env["SKYSPAN_STORE"] = server.database()
    database = url.partition("@/")[2].partition("?")[0]
    site = Site(cli, cli.compose(reference_dag(), "dag"), lambda sql: server.execute(database, sql))
    _killed(site, point, count)
    site.converge()
    site.assert_sound(STAGES)


def test_a_run_killed_again_and_again_is_finished_in_the_end(cli: Cli) -> None:
    site = Site(cli, cli.compose(reference_dag(), "dag"))
    _killed(site, Fault.COMMAND_STARTED, 5)
    for point in (Fault.COMMAND_ENDED, Fault.KEPT_AFTER, Fault.COMMIT_AFTER, Fault.INTENT_AFTER, Fault.OUTCOME):
        ran = cli.json("resume", site.name, env={"SKYSPAN_FAULT": f"{point.value}:3"})
        assert ran.status == SIGKILL, ran
    site.converge()
    site.assert_sound(STAGES)


def test_another_up_settles_the_interrupted_run_and_goes_on(cli: Cli) -> None:
    site = Site(cli, cli.compose(reference_dag(), "dag"))
    _killed(site, Fault.COMMAND_STARTED, 9)
    ran = cli.up(site.composition)
    assert ran.status == 0, ran
    runs = cli.json("runs", site.name).document["runs"]
    assert [run["status"] for run in runs] == ["succeeded", "lost"]
    site.assert_sound(STAGES)


def _killed(site: Site, point: Fault, count: int) -> None:
    ran = site.cli.up(site.composition, env={"SKYSPAN_FAULT": f"{point.value}:{count}"})
    assert ran.status == SIGKILL, f"{point} was not passed {count} times: {ran}"
