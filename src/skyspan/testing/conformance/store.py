"""What every store must do: inherit `StoreConformance` and supply the fixture `opener`.

`opener` opens one more handle on the same store, which is empty when a test begins. The suite closes the handles. A
handle opened later, as after a restart, must see all that was answered before.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from skyspan.contracts.store import (
    DeploymentRecord,
    Store,
)
from skyspan.model.error import StoreUnavailableError
from skyspan.model.event import (
    CancelRequested,
)
from skyspan.model.secret import Secret
from skyspan.testing.conformance.store_records import (
    ConnectionConformance,
    DeploymentConformance,
    LogConformance,
    SecretConformance,
)
from skyspan.testing.conformance.store_runs import LeaseConformance, RunConformance
from skyspan.testing.conformance.store_world import (
    EVERY_EVENT,
    HYBRID,
    Opener,
    batch,
    cloud_record,
    line,
    started,
)


class StoreConformance(
    DeploymentConformance,
    RunConformance,
    LeaseConformance,
    LogConformance,
    SecretConformance,
    ConnectionConformance,
):
    """All of it, and what concerns the store as a whole."""

    async def test_all_that_was_answered_is_there_after_a_restart(self, handles: Opener) -> None:
        before = handles()
        lease = await started(before)
        await before.append("run-0001", lease, replace(batch(*EVERY_EVENT), put=(cloud_record(),)))
        await before.append_log([line("text")])
        await before.put_secret("default", "token", Secret("s3cret"))
        await before.put_connection("default", "lab", "uses: check")
        await before.close()
        after = handles()
        assert len(await after.events("run-0001")) == len(EVERY_EVENT)
        assert list(await after.stage_records(HYBRID)) == [cloud_record()]
        assert [item.text for item in await after.log("run-0001")] == ["text"]
        assert await after.secret("default", "token") == Secret("s3cret")
        assert [item.text for item in await after.connections("default")] == ["uses: check"]
        assert await after.holder(HYBRID) == lease
        await after.append("run-0001", lease, batch(CancelRequested()))
        assert (await after.events("run-0001"))[-1].seq == len(EVERY_EVENT) + 1

    async def test_one_handle_sees_at_once_what_another_wrote(self, store: Store, handles: Opener) -> None:
        other = handles()
        assert await other.deployment(HYBRID) is None
        await store.save_deployment(DeploymentRecord(HYBRID))
        assert await other.deployment(HYBRID) is not None

    async def test_what_is_queued_when_it_closes_is_written(self, store: Store, handles: Opener) -> None:
        calls = [asyncio.create_task(store.put_secret("w", f"s{place:02}", Secret("x"))) for place in range(50)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*calls)
        assert len(await handles().secret_names("w")) == 50

    async def test_a_closed_handle_refuses_and_closes_again(self, store: Store) -> None:
        await store.secret_names("w")
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailableError, match="closed"):
            await store.secret_names("w")
