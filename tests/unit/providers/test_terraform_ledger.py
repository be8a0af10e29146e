"""The state endpoint's rules: by example, and against any sequence of requests of two tools under two leases."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from skyspan.providers.terraform.endpoint.ledger import (
    SIZE_LIMIT,
    Decision,
    DropLock,
    Keep,
    Ledger,
    Lock,
    Request,
    TakeLock,
    decide,
    read_version,
)


def state(serial: int, lineage: str = "one", note: str = "") -> bytes:
    return json.dumps({"version": 4, "serial": serial, "lineage": lineage, "note": note}).encode()


def lock(identity: str) -> bytes:
    return json.dumps({"ID": identity, "Who": "somebody@here"}).encode()


OPEN = Ledger(writable=True, epoch=3)
HELD = Ledger(read_version(state(5)), Lock("a", lock("a"), 3), 3, writable=True)


def test_a_reading_ledger_shows_the_state_and_refuses_everything_else() -> None:
    reading = Ledger(read_version(state(5)))
    assert decide(reading, Request("GET")).body == state(5)
    assert decide(Ledger(), Request("GET")).status == 404
    for method in ("LOCK", "UNLOCK", "POST"):
        assert decide(reading, Request(method, "a", lock("a"))).status == 403
    assert decide(HELD, Request("DELETE")).status == 405


def test_a_second_lock_is_refused_with_the_holder() -> None:
    decision = decide(HELD, Request("LOCK", body=lock("b")))
    assert (decision.status, json.loads(decision.body)["ID"]) == (423, "a")


def test_a_lock_is_durable_before_it_is_told_and_the_same_one_again_is_no_deed() -> None:
    taken = decide(OPEN, Request("LOCK", body=lock("a")))
    assert taken.deed == TakeLock(Lock("a", lock("a"), 3))
    again = decide(taken.after, Request("LOCK", body=lock("a")))
    assert (again.status, again.deed) == (200, None)
    assert decide(OPEN, Request("LOCK", body=b"{}")).status == 400


def test_unlocking_needs_the_id_of_the_lock() -> None:
    # Terraform's force-unlock sends nothing, OpenTofu's the wrong holder's information.
    assert decide(HELD, Request("UNLOCK")).status == 423
    assert decide(HELD, Request("UNLOCK", body=lock("b"))).status == 423
    freed = decide(HELD, Request("UNLOCK", body=lock("a")))
    assert (freed.status, freed.deed, freed.after.lock) == (200, DropLock(), None)


def test_a_lock_of_an_older_lease_neither_writes_nor_unlocks() -> None:
    zombie = Ledger(HELD.state, Lock("a", lock("a"), 2), 3, writable=True)
    assert decide(zombie, Request("POST", "a", state(6))).status == 423
    assert decide(zombie, Request("UNLOCK", body=lock("a"))).status == 423
    assert decide(zombie, Request("LOCK", body=lock("a"))).status == 409


def test_only_the_holder_writes_and_never_backwards() -> None:
    assert decide(OPEN, Request("POST", "", state(6))).status == 409
    assert decide(HELD, Request("POST", "b", state(6))).status == 423
    assert decide(HELD, Request("POST", "", state(6))).status == 423
    assert decide(HELD, Request("POST", "a", state(4))).status == 409
    assert decide(HELD, Request("POST", "a", state(5, note="another"))).status == 409
    assert decide(HELD, Request("POST", "a", state(6, "two"))).status == 409
    assert decide(HELD, Request("POST", "a", b"nonsense")).status == 400
    assert decide(HELD, Request("POST", "a", b" " * (SIZE_LIMIT + 1))).status == 413
    same = decide(HELD, Request("POST", "a", state(5)))
    assert (same.status, same.deed) == (200, None)
    written = decide(HELD, Request("POST", "a", state(6)))
    assert isinstance(written.deed, Keep)
    assert (written.deed.state.serial, written.deed.before) == (6, HELD.state)


class TwoTools(RuleBasedStateMachine):
    """Whatever two tools and a change of lease do in any order: one holder at a time, and states only grow."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(writable=True, epoch=1)
        self.durable: dict[str, Any] = {"lock": None, "state": None}
        self.wrote: list[tuple[int, str, int]] = []

    def ask(self, method: str, lock_id: str = "", body: bytes = b"") -> Decision:
        decision = decide(self.ledger, Request(method, lock_id, body))
        match decision.deed:
            case TakeLock(taken):
                assert self.durable["lock"] is None, "a lock is never given twice"
                self.durable["lock"] = taken
            case DropLock():
                self.durable["lock"] = None
            case Keep(new, _):
                self.durable["state"] = new
                assert self.durable["lock"] is not None
                self.wrote.append((new.serial, lock_id, self.ledger.epoch))
        assert decision.status == 200 or decision.after == self.ledger, "a refusal changes nothing"
        self.ledger = decision.after
        return decision

    @rule(who=st.sampled_from("ab"))
    def take(self, who: str) -> None:
        self.ask("LOCK", body=lock(who))

    @rule(who=st.sampled_from(["a", "b", ""]))
    def free(self, who: str) -> None:
        self.ask("UNLOCK", body=lock(who) if who else b"")

    @rule(who=st.sampled_from(["a", "b", ""]), serial=st.integers(0, 6), lineage=st.sampled_from(["one", "two"]))
    def write(self, who: str, serial: int, lineage: str) -> None:
        held = self.ledger.lock
        status = self.ask("POST", who, state(serial, lineage, who)).status
        if status == 200:
            assert held is not None
            assert (held.id, held.epoch) == (who, self.ledger.epoch)

    @rule()
    def take_over(self) -> None:
        """Another engine opens the same durable state under the next lease; the old lock stands until it is broken."""
        durable = self.durable
        self.ledger = Ledger(durable["state"], durable["lock"], self.ledger.epoch + 1, writable=True)

    @rule()
    def break_lock(self) -> None:
        self.durable["lock"] = None
        self.ledger = Ledger(self.durable["state"], None, self.ledger.epoch, writable=True)

    @rule(body=st.binary(max_size=40), method=st.text("ABCGETPOSTLKUN", min_size=3, max_size=8))
    def babble(self, body: bytes, method: str) -> None:
        self.ask(method, "", body)

    @invariant()
    def what_is_told_is_durable(self) -> None:
        assert self.ledger.lock == self.durable["lock"]
        assert self.ledger.state == self.durable["state"]

    @invariant()
    def states_only_grow(self) -> None:
        serials = [serial for serial, _, _ in self.wrote]
        assert serials == sorted(set(serials))


TestTwoTools = TwoTools.TestCase
TestTwoTools.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, print_blob=True)
