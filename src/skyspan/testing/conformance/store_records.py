"""What every store must do for deployments, logs, secrets and connections."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from skyspan.contracts.store import (
    Batch,
    DeploymentRecord,
    LogLine,
    RunRecord,
    StageRecord,
    Store,
)
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, NotFoundError
from skyspan.model.lifecycle import DeploymentStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue
from skyspan.testing.conformance.store_world import (
    EVERY_EVENT,
    HYBRID,
    NOW,
    Handles,
    Opener,
    batch,
    cloud_record,
    lease_of,
    line,
    started,
)


class DeploymentConformance(Handles):
    """Deployments and what is recorded of their stages."""

    async def test_a_deployment_comes_back_as_it_was_saved(self, store: Store) -> None:
        record = DeploymentRecord(
            HYBRID,
            DeploymentStatus.DEPLOYED,
            folder="/srv/hybrid",
            composition={"skyspan": 1, "stages": {"a": {"uses": "command", "with": {"run": ["true"]}}}},
            inputs={"region": "eu-west-1", "token": Secret("s3cret"), "count": 3, "nested": [{"$secret": "no"}]},
            health="healthy",
            last_run="run-0001",
        )
        await store.save_deployment(record)
        found = await store.deployment(HYBRID)
        assert found is not None
        assert replace(found, created_at=0.0, updated_at=0.0) == record

    async def test_an_unknown_deployment_is_none(self, store: Store) -> None:
        assert await store.deployment(HYBRID) is None
        assert list(await store.stage_records(HYBRID)) == []
        assert list(await store.runs(HYBRID)) == []

    async def test_the_time_of_creation_stays(self, store: Store) -> None:
        await store.save_deployment(DeploymentRecord(HYBRID, created_at=NOW))
        await store.save_deployment(DeploymentRecord(HYBRID, DeploymentStatus.FAILED, created_at=NOW + 9))
        found = await store.deployment(HYBRID)
        assert found is not None
        assert (found.created_at, found.status) == (NOW, DeploymentStatus.FAILED)

    async def test_a_workspace_lists_its_own_deployments_by_name(self, store: Store) -> None:
        for name in ("b", "a-b", "a_b", "ab", "a"):
            await store.save_deployment(DeploymentRecord(DeploymentAddress("one", name), folder=f"/{name}"))
        await store.save_deployment(DeploymentRecord(DeploymentAddress("two", "c")))
        found = await store.deployments("one")
        assert [record.address.name for record in found] == sorted(["b", "a-b", "a_b", "ab", "a"])
        assert found[0].folder == "/a"

    async def test_a_stage_record_comes_back_as_it_was_put(self, store: Store) -> None:
        lease = await started(store)
        await store.append("run-0001", lease, Batch(put=(cloud_record(),)))
        assert list(await store.stage_records(HYBRID)) == [cloud_record()]

    async def test_stage_records_come_in_order_and_replaced_outputs_are_gone(self, store: Store) -> None:
        lease = await started(store)
        first, second = (
            StageRecord(HYBRID.stage(name), "command", {}, order=order) for order, name in enumerate("za", 1)
        )
        await store.append("run-0001", lease, Batch(put=(second, first, cloud_record())))
        await store.append(
            "run-0001", lease, Batch(put=(replace(cloud_record(), order=0, outputs={"only": OutputValue(1)}),))
        )
        found = await store.stage_records(HYBRID)
        assert [record.address.name for record in found] == ["cloud", "z", "a"]
        assert found[0].outputs == {"only": OutputValue(1)}

    async def test_a_removed_stage_is_gone_and_removing_what_is_absent_succeeds(self, store: Store) -> None:
        lease = await started(store)
        await store.append("run-0001", lease, Batch(put=(cloud_record(),)))
        gone = Batch(removed=(HYBRID.stage("cloud"), HYBRID.stage("never")))
        await store.append("run-0001", lease, gone)
        assert list(await store.stage_records(HYBRID)) == []

    async def test_a_forgotten_deployment_leaves_nothing_but_its_epoch(self, store: Store) -> None:
        lease = await started(store)
        await store.append("run-0001", lease, replace(batch(*EVERY_EVENT), put=(cloud_record(),)))
        await store.append_log([line("text")])
        await store.kept(HYBRID.stage("cloud"), lease.epoch).put("state", b"x")
        await store.request_cancel("run-0001", "ann")
        await store.forget_deployment(HYBRID)
        await store.forget_deployment(HYBRID)
        assert await store.deployment(HYBRID) is None
        assert list(await store.stage_records(HYBRID)) == []
        assert await store.run("run-0001") is None
        assert list(await store.events("run-0001")) == []
        assert list(await store.log("run-0001")) == []
        assert await store.cancel_requested("run-0001") is None
        assert await store.kept(HYBRID.stage("cloud"), lease.epoch).get("state") is None
        assert await store.holder(HYBRID) is None
        again = await store.acquire(lease_of("bob"), NOW)
        assert again.epoch > lease.epoch

    async def test_kept_data_is_replaced_and_removed(self, store: Store, handles: Opener) -> None:
        lease = await started(store)
        kept = store.kept(HYBRID.stage("cloud"), lease.epoch)
        assert await kept.get("a/b") is None
        await kept.put("a/b", b"1")
        await kept.put("a/b", bytes(range(256)) * 4096)
        await kept.put("a", b"other")
        assert await handles().kept(HYBRID.stage("cloud"), 0).get("a/b") == bytes(range(256)) * 4096
        assert await store.kept(HYBRID.stage("link"), lease.epoch).get("a/b") is None
        await kept.remove("a/b")
        await kept.remove("a/b")
        assert await kept.get("a/b") is None
        assert await kept.get("a") == b"other"

    async def test_kept_data_of_an_older_epoch_is_refused(self, store: Store) -> None:
        old = await started(store)
        await store.kept(HYBRID.stage("cloud"), old.epoch).put("state", b"old")
        new = await store.acquire(lease_of("bob"), NOW + 60)
        zombie = store.kept(HYBRID.stage("cloud"), old.epoch)
        with pytest.raises(FencedError):
            await zombie.put("state", b"zombie")
        with pytest.raises(FencedError):
            await zombie.remove("state")
        assert await zombie.get("state") == b"old"
        await store.kept(HYBRID.stage("cloud"), new.epoch).put("state", b"new")

    async def test_kept_data_is_written_under_a_lease_that_is_held_only(self, store: Store) -> None:
        await store.save_deployment(DeploymentRecord(HYBRID))
        with pytest.raises(FencedError):
            await store.kept(HYBRID.stage("cloud"), 0).put("state", b"nobody ever held it")
        lease = await store.acquire(lease_of("ann"), NOW)
        kept = store.kept(HYBRID.stage("cloud"), lease.epoch)
        await kept.put("state", b"held")
        await store.release(lease)
        for write in (kept.put("state", b"late"), kept.remove("state")):
            with pytest.raises(FencedError):
                await write
        with pytest.raises(FencedError):
            await store.kept(HYBRID.stage("cloud"), 0).put("state", b"zero")
        with pytest.raises(FencedError):
            await store.kept(HYBRID.stage("cloud"), lease.epoch + 1).put("state", b"not yet")
        assert await kept.get("state") == b"held"

    async def test_a_deployment_is_not_replaced_under_a_stale_lease(self, store: Store) -> None:
        lease = await started(store)
        now = DeploymentRecord(HYBRID, folder="/now")
        await store.save_deployment(now, lease)
        heir = await store.acquire(lease_of("bob"), NOW + 60)
        with pytest.raises(FencedError):
            await store.save_deployment(replace(now, folder="/then"), lease)
        await store.release(heir)
        with pytest.raises(FencedError):
            await store.save_deployment(replace(now, folder="/given up"), heir)
        with pytest.raises(FencedError):
            await store.save_deployment(DeploymentRecord(DeploymentAddress("default", "other")), heir)
        found = await store.deployment(HYBRID)
        assert found is not None
        assert found.folder == "/now"
        assert await store.deployment(DeploymentAddress("default", "other")) is None


class LogConformance(Handles):
    """The merged log of each run."""

    async def test_lines_are_numbered_in_the_order_of_calls(self, store: Store) -> None:
        await started(store)
        calls = [store.append_log([line(f"{call}.{place}") for place in range(3)]) for call in range(20)]
        await asyncio.gather(*calls, store.append_log([]))
        found = await store.log("run-0001")
        assert [item.seq for item in found] == list(range(1, 61))
        assert [item.text for item in found] == [f"{call}.{place}" for call in range(20) for place in range(3)]

    async def test_a_line_comes_back_as_it_was_written(self, store: Store) -> None:
        await started(store)
        written = [
            LogLine("run-0001", 0, NOW + 0.123456, "cloud", 1, "out", "a"),
            LogLine("run-0001", 0, NOW + 0.2, "", 0, "err", ""),
            LogLine("run-0001", 0, NOW + 0.3, "cloud", 2, "err", "b"),
        ]
        await store.append_log(written)
        assert list(await store.log("run-0001")) == [replace(item, seq=n) for n, item in enumerate(written, 1)]

    async def test_reading_is_exact_to_the_line_for_all_stages_or_one(self, store: Store) -> None:
        await started(store)
        for size in (1, 2500, 7, 1, 1200, 3):
            await store.append_log([line(f"t{place}", stage=f"s{place % 3}") for place in range(size)])
        everything = list(await store.log("run-0001", limit=10_000))
        assert [item.seq for item in everything] == list(range(1, 3713))
        for stage in (None, "s0", "s2", "never"):
            expected = [item for item in everything if stage in (None, item.stage)]
            for after, limit in ((0, 1), (1, 5), (1000, 10), (2503, 4), (2400, 200), (3711, 9), (4000, 9)):
                wanted = [item for item in expected if item.seq > after][:limit]
                assert list(await store.log("run-0001", stage, after, limit)) == wanted, (stage, after, limit)

    async def test_runs_have_logs_of_their_own(self, store: Store) -> None:
        lease = await started(store)
        await store.begin_run(RunRecord("run-0002", HYBRID, Verb.CHECK), lease)
        await store.append_log([line("a"), line("b", run_id="run-0002"), line("c")])
        assert [(item.seq, item.text) for item in await store.log("run-0001")] == [(1, "a"), (2, "c")]
        assert [(item.seq, item.text) for item in await store.log("run-0002")] == [(1, "b")]
        with pytest.raises(NotFoundError):
            await store.append_log([line("x", run_id="run-0003")])

    async def test_a_stale_lease_adds_no_lines(self, store: Store) -> None:
        lease = await started(store)
        await store.append_log([line("first")], lease)
        heir = await store.acquire(lease_of("bob"), NOW + 60)
        with pytest.raises(FencedError):
            await store.append_log([line("zombie")], lease)
        await store.append_log([line("second")], heir)
        await store.release(heir)
        with pytest.raises(FencedError):
            await store.append_log([line("late")], heir)
        assert [(item.seq, item.text) for item in await store.log("run-0001")] == [(1, "first"), (2, "second")]


class SecretConformance(Handles):
    """A workspace's secrets."""

    async def test_a_secret_is_set_replaced_listed_and_removed(self, store: Store) -> None:
        assert await store.secret("one", "token") is None
        await store.put_secret("one", "token", Secret("old"))
        await store.put_secret("one", "token", Secret("new ☃\n"))
        await store.put_secret("one", "api-key", Secret(""))
        await store.put_secret("two", "other", Secret("x"))
        assert list(await store.secret_names("one")) == ["api-key", "token"]
        assert await store.secret("one", "token") == Secret("new ☃\n")
        assert await store.secret("two", "token") is None
        assert await store.remove_secret("one", "token") is True
        assert await store.remove_secret("one", "token") is False
        assert await store.secret("one", "token") is None


class ConnectionConformance(Handles):
    """A workspace's templates of connections."""

    async def test_a_template_is_added_replaced_listed_and_removed(self, store: Store, handles: Opener) -> None:
        text = "uses: wireguard\nwith: {mtu: 1380}  # \u2603\n"
        assert await store.connection("one", "lab") is None
        assert list(await store.connections("one")) == []
        assert await store.put_connection("one", "lab", text) is True
        assert await store.put_connection("one", "lab", "uses: check") is False
        found = await handles().connection("one", "lab")
        assert found is not None
        assert (found.workspace, found.name, found.text) == ("one", "lab", text)
        assert await store.put_connection("one", "lab", "uses: check", replace=True) is True
        assert await store.put_connection("one", "a-new_one", "", replace=True) is True
        assert await store.put_connection("two", "lab", "other") is True
        listed = await store.connections("one")
        assert [(item.workspace, item.name, item.text) for item in listed] == [
            ("one", "a-new_one", ""),
            ("one", "lab", "uses: check"),
        ]
        assert await store.connection("two", "a-new_one") is None
        assert await store.remove_connection("one", "lab") is True
        assert await store.remove_connection("one", "lab") is False
        assert await store.connection("one", "lab") is None
        assert await store.connection("two", "lab") is not None

    async def test_of_many_who_add_a_template_at_once_one_does(self, handles: Opener) -> None:
        adding = [handles().put_connection("w", "lab", f"uses: k{number}") for number in range(8)]
        done = await asyncio.gather(*adding)
        assert sorted(done) == [False] * 7 + [True]
        found = await handles().connection("w", "lab")
        assert found is not None
        assert found.text == f"uses: k{done.index(True)}"
