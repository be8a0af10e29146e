"""What a person may do to a kept state: what is refused, and that states never go back."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from skyspan.model.error import NotFoundError, StageError, StateLockedError
from skyspan.providers.terraform import by_hand
from skyspan.providers.terraform.endpoint.ledger import Lock
from skyspan.providers.terraform.endpoint.vault import Held
from skyspan.providers.terraform.holder import Holder, this_machine
from skyspan.providers.terraform.journal import Creation, Journal
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.provider_world import MemoryKept

CLOCK = FakeClock()


def state(serial: int, lineage: str = "one", **more: Any) -> bytes:
    return json.dumps({"version": 4, "serial": serial, "lineage": lineage, **more}).encode()


def keeping(**data: bytes) -> MemoryKept:
    kept = MemoryKept()
    kept.data.update({name.replace("_", "-"): value for name, value in data.items()})
    return kept


async def push(kept: MemoryKept, data: bytes, *, force: bool = False) -> int:
    return (await by_hand.push(kept, data, CLOCK, 1, force=force)).serial


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (state(4), r"\(serial 4\) is older than the one that stands \(serial 5\)"),
        (state(5, note="other"), r"\(serial 5\) is not newer than the one that stands"),
        (state(9, "two"), "another lineage"),
        (b"nonsense", "damaged or no state at all"),
        (b"[]", "damaged or no state at all"),
        (b"{}", "damaged or no state at all"),
        (b"\xff\xfe", "damaged or no state at all"),
        (state(6)[:-1], "damaged or no state at all"),
        (state(6).replace(b": 4", b": 5"), "format version 5"),
        (state(6).replace(b": 4", b": 3"), "format version 3"),
        (state(6, encrypted_data="x"), "is encrypted"),
    ],
)
async def test_what_is_no_newer_state_of_the_same_lineage_is_refused_and_changes_nothing(
    data: bytes, said: str
) -> None:
    kept = keeping(state=state(5))
    with pytest.raises(StageError, match=said) as caught:
        await push(kept, data)
    assert kept.data == {"state": state(5)}
    if "serial" in said or "lineage" in said:
        assert "--force" in caught.value.hint


async def test_a_forced_state_gets_a_serial_of_its_own_and_the_one_before_stays_a_version() -> None:
    kept = keeping(state=state(5))
    assert await push(kept, state(3, "two"), force=True) == 6
    assert json.loads(kept.data["state"]) == json.loads(state(6, "two"))
    assert kept.data["state-5"] == state(5)
    assert await push(kept, state(9, "two")) == 9
    assert await push(kept, state(9, "two")) == 9
    assert [entry["serial"] for entry in await by_hand.history(kept)] == [5, 6], "what stands already is no change"


async def test_a_push_of_what_was_kept_aside_settles_it() -> None:
    kept = keeping(state=state(5), state_errored=state(6))
    assert await push(kept, state(6)) == 6
    assert "state-errored" not in kept.data


async def test_a_first_state_may_be_pushed() -> None:
    kept = keeping()
    assert await push(kept, state(3)) == 3
    assert kept.data == {"state": state(3)}


async def test_going_back_to_a_forced_newer_serial_still_goes_forward() -> None:
    kept = keeping(state=state(5), state_8=state(8))
    assert (await by_hand.rollback(kept, "8", CLOCK, 1)).serial == 9
    for version, said in (
        ("7", "keeps no version 7"),
        ("new", "is no serial"),
        ("errored", "keeps no version errored"),
    ):
        with pytest.raises(NotFoundError, match=said):
            await by_hand.rollback(kept, version, CLOCK, 1)


async def test_while_a_command_holds_the_lock_it_is_named_and_nothing_changes() -> None:
    holder = Holder("x", this_machine(), run="r1", number=2, since=1_700_000_000.0)
    kept = keeping(state=state(5), lock=Held(Lock("a", b"{}", 1), holder).record())
    for act in (push(kept, state(6)), push(kept, state(6), force=True), by_hand.rollback(kept, "5", CLOCK, 1)):
        with pytest.raises(StateLockedError, match=r"attempt 2 of run r1 on .* since 2023-11-14 22:13:20 UTC"):
            await act
    assert kept.data["state"] == state(5)


async def test_what_is_in_doubt_is_shown_even_where_no_state_was_ever_kept() -> None:
    with pytest.raises(NotFoundError, match="keeps no state"):
        await by_hand.overview(keeping())
    journal = Journal(made={"a.b": "id-1"}, begun={"a.c": "x"})
    found = await by_hand.overview(keeping(journal=journal.dump()))
    assert (found.state.empty, found.orphans, found.doubts) == (True, {"a.b": "id-1"}, ("a.c",))


async def test_what_may_have_begun_unheard_can_be_settled_and_what_stands_cannot() -> None:
    planned = {"a.b": Creation("a"), "a.c": Creation("a"), "a.d": Creation("a")}
    journal = Journal(made={"a.d": "id-4"}).opened(Holder("x", this_machine()), planned, 0.0)
    instance = {"attributes": {"id": "id-2"}}
    resource = {"mode": "managed", "type": "a", "name": "b", "provider": "p", "instances": [instance]}
    kept = keeping(state=state(5, resources=[resource]), journal=journal.dump())
    await by_hand.settle(kept, "a.c", "id-3")
    await by_hand.settle(kept, "a.d", None)
    assert Journal.load(kept.data["journal"]).settled == {"a.c": "id-3", "a.d": ""}
    for address in ("a.b", "a.z"):
        with pytest.raises(NotFoundError, match=f"{address} is not in doubt") as caught:
            await by_hand.settle(kept, address, None)
        assert caught.value.hint == "in doubt or to be imported: a.c, a.d"


async def test_what_may_have_begun_unheard_is_in_doubt_once_the_command_is_not_seen_to_run() -> None:
    planned = {"a.b": Creation("a"), "a.c": Creation("a", needs=("a.b",))}
    attempt = "of-a-test-that-ran-long-ago"
    journal = Journal().opened(Holder(attempt, this_machine()), planned, 0.0)
    overview = await by_hand.overview(keeping(journal=journal.dump()))
    assert overview.doubts == ("a.b",), "nothing is begun before what it refers to is there"
    # It says a word first: in the midst of its exec, a process has no environment that others could see.
    waiting = ("sh", "-c", "echo begun; read -r _")
    env = {"PATH": os.environ["PATH"], "SKYSPAN_ATTEMPT": attempt}
    with subprocess.Popen(waiting, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as at_work:
        assert at_work.stdout is not None
        assert at_work.stdout.readline() == b"begun\n"
        with pytest.raises(NotFoundError, match="keeps no state"):
            await by_hand.overview(keeping(journal=journal.dump()))
        at_work.kill()
