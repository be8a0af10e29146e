"""Random sequences of calls on a store in memory and on a real one, side by side: the same answers to the same calls.

Two handles each, as two processes would have; leases that expire, are taken over and given up; writes under stale ones.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from skyspan.contracts.store import (
    Batch,
    ConnectionRecord,
    DeploymentRecord,
    Lease,
    LogBlock,
    LogLine,
    RunRecord,
    StageRecord,
    Store,
)
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, NotFoundError, SkyspanError
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    EffectIntended,
    Event,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.memory_store import MemoryStore

ADDRESSES = (DeploymentAddress("default", "one"), DeploymentAddress("default", "two"), DeploymentAddress("lab", "one"))
STAGES = ("a", "b")
START = 1_800_000_000.0

address = st.sampled_from(ADDRESSES)
handle = st.integers(0, 1)
stage = st.sampled_from(STAGES)
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
outlines = tuple(StageOutline(name, "command") for name in STAGES)
error = st.fixed_dictionaries({"kind": st.just("ToolFailedError"), "summary": text, "retry": st.just("never")})
event: st.SearchStrategy[Event] = st.one_of(
    st.builds(StageStarted, stage, st.integers(1, 3)),
    st.builds(EffectIntended, stage, st.integers(1, 3), st.just("apply")),
    st.builds(AttemptFailed, stage, st.integers(1, 3), error),
    st.builds(RetryScheduled, stage, st.integers(2, 3), st.sampled_from((0.0, 2.5))),
    st.builds(StageEnded, stage, st.integers(0, 3), st.sampled_from(StageStatus), text, outputs=st.just(("ip",))),
    st.builds(CancelRequested, text),
    st.builds(RunEnded, st.sampled_from(RunStatus), text),
)
value = st.one_of(text, st.integers(-5, 5), st.booleans(), st.none(), st.builds(Secret, text.filter(bool)))
record = st.builds(
    StageRecord,
    st.builds(DeploymentAddress.stage, address, stage),
    st.just("command"),
    st.dictionaries(st.sampled_from(("run", "env")), value, max_size=2),
    fingerprint=text,
    order=st.integers(0, 2),
    present=st.booleans(),
    outputs=st.dictionaries(st.just("ip"), st.builds(OutputValue, value, sensitive=st.booleans()), max_size=1),
)


class Stopped:
    """A clock that stands still: `updated_at` is the store's own and must not differ between two runs."""

    def now(self) -> float:
        return START

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TwoStores(RuleBasedStateMachine):
    """Every call goes to both; the model is the store in memory."""

    leases = Bundle("leases")
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        home = Path(self._folder.name)
        self._loop = asyncio.new_event_loop()
        model = MemoryStore()
        self._models: list[Store] = [model, model.another()]
        sealer, path = EnvelopeSealer(home), str(home / "skyspan.db")
        self._reals: list[Store] = [open_store(path, sealer, Stopped()), open_store(path, sealer, Stopped())]
        self._now = START
        self._count = 0
        self._begun: set[str] = set()
        """Runs that have their first event, which no run has twice."""

    def teardown(self) -> None:
        for store in self._reals:
            self._loop.run_until_complete(store.close())
        self._loop.close()
        self._folder.cleanup()

    def both(self, which: int, call: Callable[[Store], Awaitable[Any]]) -> Any:
        """The answer of both, which has to be the same: a result, or an error of the same kind."""
        wanted = self._loop.run_until_complete(_answer(call, self._models[which]))
        found = self._loop.run_until_complete(_answer(call, self._reals[which]))
        assert _comparable(found) == _comparable(wanted)
        return found

    # Writing

    @initialize()
    def begin(self) -> None:
        self.save(0, ADDRESSES[0], "/srv/one")

    @rule(which=handle, where=address, folder=text)
    def save(self, which: int, where: DeploymentAddress, folder: str) -> None:
        made = DeploymentRecord(where, folder=folder, inputs={"folder": folder}, created_at=self._now)
        self.both(which, lambda store: store.save_deployment(made))

    @rule(which=handle, lease=leases, folder=text)
    def save_under(self, which: int, lease: Lease, folder: str) -> None:
        made = DeploymentRecord(lease.deployment, folder=folder, created_at=self._now)
        self.both(which, lambda store: store.save_deployment(made, lease))

    @rule(which=handle, run=runs, lease=leases, said=text)
    def log_under(self, which: int, run: RunRecord, lease: Lease, said: str) -> None:
        made = [LogLine(run.id, 0, self._now, "a", 1, "out", said)]
        self.both(which, lambda store: store.append_log(made, lease))

    @rule(which=handle, where=address)
    def forget(self, which: int, where: DeploymentAddress) -> None:
        self.both(which, lambda store: store.forget_deployment(where))

    @rule(seconds=st.floats(0.1, 40.0))
    def time_passes(self, seconds: float) -> None:
        self._now += seconds

    @rule(target=leases, which=handle, where=address, owner=st.sampled_from(("ann", "bob")))
    def acquire(self, which: int, where: DeploymentAddress, owner: str) -> Lease:
        now, wanted = self._now, Lease(where, owner, 0, self._now + 30.0, "run-x")
        taken = self.both(which, lambda store: store.acquire(wanted, now))
        # One that was refused goes on as a forged one, which nobody may write under.
        if not isinstance(taken, Lease):
            return replace(wanted, epoch=99)
        return taken

    @rule(which=handle, lease=leases, seconds=st.floats(0.0, 60.0))
    def renew(self, which: int, lease: Lease, seconds: float) -> None:
        until = self._now + seconds
        self.both(which, lambda store: store.renew(lease, until))

    @rule(which=handle, lease=leases)
    def release(self, which: int, lease: Lease) -> None:
        self.both(which, lambda store: store.release(lease))

    @rule(target=runs, which=handle, lease=leases, verb=st.sampled_from(Verb), again=st.booleans())
    def begin_run(self, which: int, lease: Lease, verb: Verb, again: bool) -> RunRecord:
        self._count += not again or not self._count
        made = RunRecord(
            f"{self._count:04}-run", lease.deployment, verb, started_at=START + self._count, epoch=lease.epoch
        )
        self.both(which, lambda store: store.begin_run(made, lease))
        return made

    @rule(
        which=handle,
        run=runs,
        lease=leases,
        events=st.lists(event, max_size=4),
        put=st.lists(record, max_size=2),
        removed=st.lists(st.builds(DeploymentAddress.stage, address, stage), max_size=1),
    )
    def append(
        self, which: int, run: RunRecord, lease: Lease, events: list[Event], put: list[StageRecord], removed: list[Any]
    ) -> None:
        mine = [replace(item, address=run.deployment.stage(item.address.name)) for item in put]
        gone = [run.deployment.stage(item.name) for item in removed]
        if events and run.id not in self._begun:
            events = [RunStarted(run.verb, outlines, requested_by="ann"), *events]
        batch = Batch(tuple((self._now, item) for item in events), tuple(mine), tuple(gone))
        if self.both(which, lambda store: store.append(run.id, lease, batch)) is None and events:
            self._begun.add(run.id)

    @rule(which=handle, run=runs, by=text)
    def request_cancel(self, which: int, run: RunRecord, by: str) -> None:
        self.both(which, lambda store: store.request_cancel(run.id, by))

    @rule(which=handle, run=runs, lines=st.lists(st.tuples(stage, text), min_size=1, max_size=3))
    def log(self, which: int, run: RunRecord, lines: list[tuple[str, str]]) -> None:
        made = [LogLine(run.id, 0, self._now, name, 1, "out", said) for name, said in lines]
        self.both(which, lambda store: store.append_log(made))

    @rule(which=handle, run=runs, name=stage, texts=st.lists(text, min_size=1, max_size=3))
    def log_block(self, which: int, run: RunRecord, name: str, texts: list[str]) -> None:
        block = LogBlock(run.id, self._now, name, 1, "err", tuple(texts))
        self.both(which, lambda store: store.append_log(block))

    @rule(
        which=handle,
        where=address,
        name=stage,
        epoch=st.integers(0, 4),
        data=st.one_of(st.none(), st.binary(max_size=8)),
    )
    def keep(self, which: int, where: DeploymentAddress, name: str, epoch: int, data: bytes | None) -> None:
        def call(store: Store) -> Awaitable[None]:
            kept = store.kept(where.stage(name), epoch)
            return kept.remove("state") if data is None else kept.put("state", data)

        self.both(which, call)

    @rule(which=handle, name=stage, secret=st.one_of(st.none(), st.builds(Secret, text)))
    def secret(self, which: int, name: str, secret: Secret | None) -> None:
        if secret is None:
            self.both(which, lambda store: store.remove_secret("default", name))
        else:
            self.both(which, lambda store: store.put_secret("default", name, secret))

    @rule(which=handle, name=stage, written=st.one_of(st.none(), text), replace=st.booleans())
    def connection(self, which: int, name: str, written: str | None, replace: bool) -> None:
        if written is None:
            self.both(which, lambda store: store.remove_connection("default", name))
        else:
            self.both(which, lambda store: store.put_connection("default", name, written, replace=replace))

    # Reading

    @rule(which=handle, run=runs, after=st.integers(0, 6), limit=st.integers(1, 4))
    def read_run(self, which: int, run: RunRecord, after: int, limit: int) -> None:
        self.both(which, lambda store: store.run(run.id))
        self.both(which, lambda store: store.stage_runs(run.id))
        self.both(which, lambda store: store.events(run.id, after, limit))
        self.both(which, lambda store: store.cancel_requested(run.id))
        self.both(which, lambda store: store.log(run.id, None, after, limit))
        self.both(which, lambda store: store.log(run.id, "a", after, limit))

    @rule(which=handle, where=address)
    def read_deployment(self, which: int, where: DeploymentAddress) -> None:
        self.both(which, lambda store: store.deployment(where))
        self.both(which, lambda store: store.deployments(where.workspace))
        self.both(which, lambda store: store.stage_records(where))
        self.both(which, lambda store: store.runs(where))
        self.both(which, lambda store: store.holder(where))
        self.both(which, lambda store: store.kept(where.stage("a"), 0).get("state"))
        self.both(which, lambda store: store.secret("default", "a"))
        self.both(which, lambda store: store.secret_names("default"))
        self.both(which, lambda store: store.connections("default"))
        self.both(which, lambda store: store.connection("default", "a"))

    @invariant()
    def who_holds_what_is_agreed_on(self) -> None:
        for where in ADDRESSES[:1]:
            self.both(0, lambda store, where=where: store.holder(where))  # type: ignore[misc]


async def _answer(call: Callable[[Store], Awaitable[Any]], store: Store) -> Any:
    try:
        return await call(store)
    except SkyspanError as error:
        return type(error)


def _comparable(answer: Any) -> Any:
    """The answer without what is each store's own: when a row was changed, and what a listing leaves out."""
    if isinstance(answer, DeploymentRecord | ConnectionRecord):
        return replace(answer, updated_at=0.0)
    if answer in (FencedError, NotFoundError):
        # Of two reasons to refuse either may be told.
        return "refused"
    if isinstance(answer, Secret):
        return answer.reveal()
    if isinstance(answer, Sequence) and not isinstance(answer, str | bytes):
        listed = [_comparable(item) for item in answer]
        return [
            replace(item, composition={}, inputs={}) if isinstance(item, DeploymentRecord) else item for item in listed
        ]
    return answer


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
