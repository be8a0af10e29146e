"""What every store must do for runs, events and leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from skyspan.contracts.store import (
    Batch,
    DeploymentRecord,
    Lease,
    RunRecord,
    Store,
)
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, NotFoundError, RefusedError, StoreError
from skyspan.model.event import (
    CancelRequested,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StageStarted,
)
from skyspan.model.lifecycle import DeploymentStatus, RunStatus, StageStatus, Verb
from skyspan.testing.conformance.store_world import (
    EVERY_EVENT,
    HYBRID,
    NOW,
    OUTLINES,
    Handles,
    Opener,
    batch,
    cloud_record,
    lease_of,
    line,
    started,
)


class RunConformance(Handles):
    """Runs, their events and what follows from them."""

    async def test_events_of_every_kind_come_back_numbered_from_one_without_gap(self, store: Store) -> None:
        lease = await started(store)
        for event in EVERY_EVENT:
            await store.append("run-0001", lease, batch(event))
        found = await store.events("run-0001")
        assert [item.seq for item in found] == list(range(1, len(EVERY_EVENT) + 1))
        assert tuple(item.event for item in found) == EVERY_EVENT
        assert {(item.run_id, item.at) for item in found} == {("run-0001", NOW)}

    async def test_events_are_read_after_a_number_and_up_to_a_limit(self, store: Store) -> None:
        lease = await started(store)
        await store.append("run-0001", lease, batch(*EVERY_EVENT))
        assert [item.seq for item in await store.events("run-0001", after=3, limit=4)] == [4, 5, 6, 7]
        assert list(await store.events("run-0001", after=len(EVERY_EVENT))) == []
        assert list(await store.events("run-0002")) == []

    async def test_calls_keep_their_order_when_not_awaited_one_by_one(self, store: Store) -> None:
        lease = await started(store)
        calls = [store.append("run-0001", lease, batch(StageStarted(f"s{place}", 1))) for place in range(300)]
        await asyncio.gather(*calls)
        found = await store.events("run-0001")
        assert [item.event for item in found] == [StageStarted(f"s{place}", 1) for place in range(300)]

    async def test_projections_follow_the_events(self, store: Store) -> None:
        lease = await started(store)
        await store.append("run-0001", lease, batch(*EVERY_EVENT[:9]))
        deployment, run = await store.deployment(HYBRID), await store.run("run-0001")
        cloud, link = await store.stage_runs("run-0001")
        assert deployment is not None
        assert run is not None
        assert (deployment.status, deployment.last_run) == (DeploymentStatus.DEPLOYING, "run-0001")
        assert (run.status, run.finished_at, run.requested_by) == (RunStatus.RUNNING, 0.0, "ann")
        assert (cloud.status, cloud.attempt, cloud.change, cloud.error) == (StageStatus.RUNNING, 2, "create", None)
        assert (link.status, link.order, link.uses) == (StageStatus.PENDING, 1, "wireguard")
        for event in EVERY_EVENT[9:]:
            await store.append("run-0001", lease, Batch(((NOW + 99, event),)))
        deployment, run = await store.deployment(HYBRID), await store.run("run-0001")
        cloud, link = await store.stage_runs("run-0001")
        assert deployment is not None
        assert run is not None
        assert deployment.status is DeploymentStatus.FAILED
        assert (run.status, run.finished_at, run.reason) == (RunStatus.CANCELLED, NOW + 99, "ann asked")
        assert (cloud.status, cloud.outputs) == (StageStatus.SUCCEEDED, ("gateway_ip", "password"))
        assert (link.status, link.reason) == (StageStatus.CANCELLED, "the run was cancelled")

    async def test_a_reading_run_gives_the_deployment_its_status_back(self, store: Store) -> None:
        await store.save_deployment(DeploymentRecord(HYBRID, DeploymentStatus.STOPPED))
        lease = await store.acquire(lease_of("ann", verb=Verb.PLAN), NOW)
        await store.begin_run(RunRecord("run-0001", HYBRID, Verb.PLAN), lease)
        await store.append("run-0001", lease, batch(RunStarted(Verb.PLAN, ()), RunEnded(RunStatus.SUCCEEDED)))
        found = await store.deployment(HYBRID)
        assert found is not None
        assert found.status is DeploymentStatus.STOPPED

    async def test_a_stale_lease_writes_nothing(self, store: Store) -> None:
        old = await started(store)
        await store.acquire(lease_of("bob", "run-0002"), NOW + 60)
        with pytest.raises(FencedError):
            await store.append("run-0001", old, replace(batch(RunStarted(Verb.UP, OUTLINES)), put=(cloud_record(),)))
        with pytest.raises(FencedError):
            await store.begin_run(RunRecord("run-0003", HYBRID, Verb.UP), old)
        assert list(await store.events("run-0001")) == []
        assert list(await store.stage_records(HYBRID)) == []
        assert list(await store.stage_runs("run-0001")) == []
        assert await store.run("run-0003") is None

    async def test_a_lease_covers_no_stage_of_another_deployment(self, store: Store) -> None:
        lease = await started(store)
        foreign = replace(HYBRID, name="another").stage("cloud")
        for reaching in (
            Batch(put=(replace(cloud_record(), address=foreign),)),
            Batch(removed=(foreign,)),
            replace(batch(StageStarted("cloud", 1)), put=(cloud_record(),), removed=(foreign,)),
        ):
            with pytest.raises(FencedError):
                await store.append("run-0001", lease, reaching)
        assert list(await store.events("run-0001")) == []
        assert list(await store.stage_records(HYBRID)) == []

    async def test_a_lease_that_was_given_up_writes_nothing(self, store: Store) -> None:
        lease = await started(store)
        await store.append("run-0001", lease, batch(StageStarted("cloud", 1)))
        await store.release(lease)
        for stale in (lease, replace(lease, epoch=0), replace(lease, epoch=lease.epoch + 1)):
            with pytest.raises(FencedError):
                await store.append("run-0001", stale, replace(batch(StageStarted("link", 1)), put=(cloud_record(),)))
            with pytest.raises(FencedError):
                await store.begin_run(RunRecord("run-0002", HYBRID, Verb.UP), stale)
        assert [item.event for item in await store.events("run-0001")] == [StageStarted("cloud", 1)]
        assert list(await store.stage_records(HYBRID)) == []
        assert await store.run("run-0002") is None

    async def test_a_lease_that_has_run_out_writes_until_somebody_takes_it(self, store: Store) -> None:
        # Clocks decide who may take over. A clock that was set must never make the one holder lose what it did.
        lease = await started(store)
        for now in (NOW + 3600, NOW - 3600):
            await store.append("run-0001", lease, Batch(((now, StageStarted("cloud", 1)),)))
        assert [item.seq for item in await store.events("run-0001")] == [1, 2]
        assert [item.at for item in await store.events("run-0001")] == [NOW + 3600, NOW - 3600]

    async def test_one_refused_batch_spoils_no_other_that_waits_with_it(self, store: Store) -> None:
        lease = await started(store)
        stale = replace(lease, epoch=lease.epoch - 1)
        results = await asyncio.gather(
            *(
                store.append("run-0001", stale if place == 2 else lease, batch(StageStarted(f"s{place}", 1)))
                for place in range(5)
            ),
            return_exceptions=True,
        )
        assert isinstance(results.pop(2), FencedError)
        assert results == [None] * 4
        found = [item.event for item in await store.events("run-0001")]
        assert found == [StageStarted(f"s{place}", 1) for place in (0, 1, 3, 4)]

    async def test_a_run_id_must_be_new_and_its_deployment_known(self, store: Store) -> None:
        lease = await started(store)
        with pytest.raises(StoreError, match="run-0001"):
            await store.begin_run(RunRecord("run-0001", HYBRID, Verb.UP), lease)
        nowhere = DeploymentAddress("default", "nowhere")
        other = await store.acquire(Lease(nowhere, "ann", 0, NOW + 30), NOW)
        with pytest.raises(NotFoundError, match="nowhere"):
            await store.begin_run(RunRecord("run-0002", nowhere, Verb.UP), other)
        with pytest.raises(NotFoundError, match="run-0009"):
            await store.append("run-0009", lease, batch(CancelRequested()))

    async def test_a_run_is_found_by_an_unambiguous_prefix(self, store: Store) -> None:
        lease = await started(store, "abcd1111")
        await store.begin_run(RunRecord("abcd2222", HYBRID, Verb.UP), lease)
        await store.begin_run(RunRecord("abcd", HYBRID, Verb.UP), lease)
        found = [await store.run(text) for text in ("abcd1111", "abcd2", "abcd", "abc", "", "abce", "ABCD1")]
        assert [run and run.id for run in found] == ["abcd1111", "abcd2222", "abcd", None, None, None, None]

    async def test_an_ambiguous_prefix_names_the_candidates(self, store: Store) -> None:
        lease = await started(store, "abcd1111")
        await store.begin_run(RunRecord("abcd2222", HYBRID, Verb.UP), lease)
        with pytest.raises(NotFoundError, match="abcd1111, abcd2222"):
            await store.run("abcd")

    async def test_runs_come_newest_first_up_to_a_limit(self, store: Store) -> None:
        lease = await started(store, "run-0000")
        for place in range(1, 5):
            run = RunRecord(f"run-000{place}", HYBRID, Verb.CHECK, started_at=NOW + place)
            await store.begin_run(run, lease)
        assert [run.id for run in await store.runs(HYBRID, limit=3)] == ["run-0004", "run-0003", "run-0002"]

    async def test_texts_of_any_kind_survive(self, store: Store) -> None:
        lease = await started(store)
        texts = ("ünï☃", "tab\tnul\0", "emoji 🚀", "\ud800", "'; --", "%s :x {}")
        ended = [StageEnded(f"s{place}", 1, StageStatus.FAILED, reason=text) for place, text in enumerate(texts)]
        outlines = tuple(StageOutline(event.stage, "command") for event in ended)
        await store.append("run-0001", lease, batch(RunStarted(Verb.UP, outlines), *ended))
        assert [item.event for item in await store.events("run-0001")][1:] == ended
        assert (await store.stage_runs("run-0001"))[0].reason == "ünï☃"
        await store.append_log([line(text) for text in texts])
        assert tuple(item.text for item in await store.log("run-0001")) == texts


class LeaseConformance(Handles):
    """One run at a time per deployment."""

    async def test_each_holder_gets_a_higher_epoch(self, store: Store) -> None:
        first = await store.acquire(lease_of("ann"), NOW)
        await store.release(first)
        second = await store.acquire(lease_of("bob"), NOW)
        third = await store.acquire(lease_of("cid"), NOW + 31)
        assert 0 < first.epoch < second.epoch < third.epoch
        assert await store.holder(HYBRID) == third

    async def test_a_held_deployment_refuses_and_says_who_does_what_since_when(self, store: Store) -> None:
        await store.acquire(lease_of("ann@desk, process 7", "run-0042", verb=Verb.DESTROY), NOW)
        with pytest.raises(RefusedError) as caught:
            await store.acquire(lease_of("bob"), NOW + 29)
        for part in ("ann@desk, process 7", "destroy", "run-0042", "2027-01-15T08:00:00Z"):
            assert part in caught.value.summary

    async def test_deployments_are_held_independently(self, store: Store) -> None:
        await store.acquire(lease_of("ann"), NOW)
        other = Lease(DeploymentAddress("other", "hybrid"), "bob", 0, NOW + 30)
        assert (await store.acquire(other, NOW)).owner == "bob"

    async def test_a_renewed_lease_is_not_taken_over(self, store: Store) -> None:
        lease = await store.acquire(lease_of("ann"), NOW)
        renewed = await store.renew(lease, NOW + 90)
        assert renewed == replace(lease, expires_at=NOW + 90)
        with pytest.raises(RefusedError):
            await store.acquire(lease_of("bob"), NOW + 60)

    async def test_a_lease_that_was_taken_over_can_be_neither_renewed_nor_released(self, store: Store) -> None:
        old = await store.acquire(lease_of("ann"), NOW)
        new = await store.acquire(lease_of("bob"), NOW + 30)
        with pytest.raises(FencedError, match="bob"):
            await store.renew(old, NOW + 99)
        await store.release(old)
        assert await store.holder(HYBRID) == new

    async def test_a_released_lease_has_no_holder(self, store: Store) -> None:
        lease = await store.acquire(lease_of("ann"), NOW)
        await store.release(lease)
        await store.release(lease)
        assert await store.holder(HYBRID) is None
        with pytest.raises(FencedError):
            await store.renew(lease, NOW + 99)

    async def test_a_clock_that_was_set_back_takes_nothing_from_the_holder(self, store: Store) -> None:
        lease = await store.acquire(lease_of("ann"), NOW)
        with pytest.raises(RefusedError):
            await store.acquire(lease_of("bob"), NOW - 3600)
        # By its own clock, an hour back, the holder makes the time shorter: it is still the one of that epoch.
        renewed = await store.renew(lease, NOW - 3570)
        assert renewed.epoch == lease.epoch
        heir = await store.acquire(lease_of("bob"), NOW)
        assert heir.epoch == lease.epoch + 1
        with pytest.raises(FencedError):
            await store.renew(lease, NOW + 7200)

    async def test_of_many_that_race_exactly_one_wins(self, handles: Opener) -> None:
        racers = [handles() for _ in range(4)]
        results = await asyncio.gather(
            *(racer.acquire(lease_of(f"racer {place}"), NOW) for place, racer in enumerate(racers)),
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, Lease)]
        losers = [result for result in results if isinstance(result, RefusedError)]
        assert (len(winners), len(losers)) == (1, 3)
        assert all(winners[0].owner in loser.summary for loser in losers)

    async def test_the_first_request_to_cancel_is_remembered(self, store: Store, handles: Opener) -> None:
        await started(store)
        assert await store.cancel_requested("run-0001") is None
        await handles().request_cancel("run-0001", "bob")
        await store.request_cancel("run-0001", "ann")
        assert await store.cancel_requested("run-0001") == "bob"
        with pytest.raises(NotFoundError):
            await store.request_cancel("run-0002", "ann")
