"""SIGKILL at every crash point: whatever comes next finds the run, finishes it, and does nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.support.chaos import RECOVERY_S, SIGKILL, Site, brief, reference_dag
from tests.support.cli import Cli
from tests.support.nursery import Nursery
from tests.support.postgres import PostgresServer

from skyspan.engine.faults import Fault

pytestmark = pytest.mark.chaos

STAGES = [f"s{number}" for number in range(40)]
AT_ONCE = 4
BUSY = 3.0
"""How much longer than RECOVERY_S it may take where AT_ONCE engines, and whatever else, share two processors."""

# Passed once in a run, and passed by every stage; what several stages write is gathered in one commit.
_ONCE = tuple(point for point in Fault if point.value.split(".")[0] in {"lease", "register", "run", "close", "release"})
_COMMIT = tuple(point for point in Fault if point.value.split(".")[0] in {"commit", "log"})
_RENEW = (Fault.RENEW_BEFORE, Fault.RENEW_AFTER)
_EACH = tuple(point for point in Fault if point not in (*_ONCE, *_COMMIT, *_RENEW))
PASSAGES = [
    *((point, 1) for point in (*_ONCE, *_RENEW)),
    *((point, count) for point in _COMMIT for count in (1, 2)),
    *((point, 6) for point in _COMMIT if point.value.startswith("commit")),
    # Only every other stage remembers something beforehand.
    *((point, count) for point in _EACH for count in (2, 20 if point is Fault.KEPT_AFTER else 40)),
]
# Every point here too, but late in the run only: what differs is the database, not how far the run had come.
ON_POSTGRESQL = [(point, count) for point, count in PASSAGES if not (point in _EACH and count == 2)]


@pytest.mark.parametrize("passages", [PASSAGES, ON_POSTGRESQL], ids=["sqlite", "postgresql"])
def test_every_crash_point_is_visited(passages: list[tuple[Fault, int]]) -> None:
    assert {point for point, _ in passages} == set(Fault)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as made:
        yield made


def test_a_run_killed_anywhere_is_finished_and_does_nothing_twice(tmp_path: Path, nursery: Nursery) -> None:
    @contextmanager
    def site(cli: Cli) -> Iterator[Site]:
        yield Site(cli, cli.compose(reference_dag(), "dag"), nursery=nursery)

    _all_points(tmp_path, site, PASSAGES, "sqlite")


def test_the_same_holds_on_postgresql(tmp_path: Path, nursery: Nursery, server: PostgresServer) -> None:
    # A few databases, emptied after each use: making one takes longer than a run.
    free = [server.database() for _ in range(AT_ONCE)]

    @contextmanager
    def site(cli: Cli) -> Iterator[Site]:
        url = cli.env["SKYSPAN_STORE"] = free.pop()
        database = url.partition("@/")[2].partition("?")[0]
        yield Site(cli, cli.compose(reference_dag(), "dag"), lambda sql: server.execute(database, sql), nursery)
        server.execute(database, "DROP SCHEMA public CASCADE")
        server.execute(database, "CREATE SCHEMA public")
        free.append(url)

    _all_points(tmp_path, site, ON_POSTGRESQL, "postgresql")


def test_a_run_killed_again_and_again_is_finished_in_the_end(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    site = Site(cli, cli.compose(reference_dag(), "dag"))
    _kill(site, Fault.COMMAND_STARTED, 5)
    for point in (Fault.COMMAND_ENDED, Fault.KEPT_AFTER, Fault.COMMIT_AFTER, Fault.INTENT_AFTER, Fault.OUTCOME):
        ran = cli.json("resume", site.name, env={"SKYSPAN_FAULT": f"{point.value}:3"})
        assert ran.status == SIGKILL, f"{point}: {brief(ran)}"
    site.converge()
    print(f"recovery with the start of the interpreter: {site.recovery_s:.2f} s")
    assert site.recovery_s <= RECOVERY_S * BUSY
    site.assert_sound(STAGES)


def test_another_up_settles_the_interrupted_run_and_goes_on(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    site = Site(cli, cli.compose(reference_dag(), "dag"))
    _kill(site, Fault.COMMAND_STARTED, 9)
    ran = cli.up(site.composition)
    assert ran.status == 0, brief(ran)
    runs = cli.json("runs", site.name).document["runs"]
    assert [run["status"] for run in runs] == ["succeeded", "lost"]
    site.assert_sound(STAGES)


def _all_points(
    folder: Path,
    make: Callable[[Cli], AbstractContextManager[Site]],
    passages: Sequence[tuple[Fault, int]],
    database: str,
) -> None:
    def case(number: int) -> tuple[float, str]:
        point, count = passages[number]
        told = f"{point.value}:{count} on {database}"
        home = folder / f"{number}"
        home.mkdir()
        try:
            with make(Cli(home)) as site:
                return _one(site, point, count), told
        except AssertionError as error:
            raise AssertionError(f"killed at {told}: {error}") from error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = sorted(pool.map(case, range(len(passages))), reverse=True)
    worst, where = results[0]
    usual = results[len(results) // 2][0]
    print(f"{len(results)} kills on {database}: recovery {usual:.2f} s in the median, {worst:.2f} s at worst ({where})")
    assert usual <= RECOVERY_S
    assert worst <= RECOVERY_S * BUSY


def _one(site: Site, point: Fault, count: int) -> float:
    """How long the recovery took."""
    if point in _RENEW:
        site.cli.env["SKYSPAN_LEASE_SECONDS"] = "0.3"
    _kill(site, point, count)
    site.converge()
    site.assert_sound(STAGES)
    return site.recovery_s


def _kill(site: Site, point: Fault, count: int) -> None:
    ran = site.up({"SKYSPAN_FAULT": f"{point.value}:{count}"})
    assert ran.status == SIGKILL, f"{point} was not passed {count} times: {brief(ran)}"
