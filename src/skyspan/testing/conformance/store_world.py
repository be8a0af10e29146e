"""What all parts of the store's conformance suite share: a deployment to talk about, and handles on the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest

from skyspan.contracts.store import (
    Batch,
    DeploymentRecord,
    Lease,
    LogLine,
    RunRecord,
    StageRecord,
    Store,
)
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import ConsoleLink
from skyspan.model.event import (
    AttemptFailed,
    CancelRequested,
    EffectIntended,
    Event,
    RetryDue,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StageEnded,
    StageOutline,
    StagePlanned,
    StageProgressed,
    StageStarted,
)
from skyspan.model.lifecycle import RunStatus, StageStatus, Verb
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue

Opener: TypeAlias = Callable[[], Store]

HYBRID = DeploymentAddress("default", "hybrid")
NOW = 1_800_000_000.0

OUTLINES = (StageOutline("cloud", "terraform"), StageOutline("link", "wireguard", needs=("cloud",), best_effort=True))

EVERY_EVENT: tuple[Event, ...] = (
    RunStarted(Verb.UP, OUTLINES, concurrency=4, requested_by="ann"),
    StageStarted("cloud", 1),
    StagePlanned("cloud", 1, {"change": "create", "reason": "absent", "unknown": [], "resources": []}),
    EffectIntended("cloud", 1, "apply"),
    StageProgressed("cloud", 1, "aws_vpc.main", "create", "done", "vpc-1"),
    AttemptFailed("cloud", 1, {"kind": "ToolFailedError", "summary": "tofu failed", "retry": "now"}),
    RetryScheduled("cloud", 2, 2.5),
    RetryDue("cloud", 2),
    StageStarted("cloud", 2),
    StageEnded("cloud", 2, StageStatus.SUCCEEDED, change="create", outputs=("gateway_ip", "password")),
    CancelRequested("ann"),
    StageEnded("link", 0, StageStatus.CANCELLED, reason="the run was cancelled"),
    RunEnded(RunStatus.CANCELLED, "ann asked"),
)


def lease_of(owner: str, run_id: str = "run-0001", *, expires_at: float = NOW + 30, verb: Verb = Verb.UP) -> Lease:
    """A lease to ask for."""
    return Lease(HYBRID, owner, 0, expires_at, run_id, verb)


def cloud_record() -> StageRecord:
    """A record that uses every field."""
    return StageRecord(
        address=HYBRID.stage("cloud"),
        uses="terraform",
        spec={"source": "./cloud", "variables": {"token": Secret("s3cret"), "list": [1, 2.5, None, True]}},
        hosts={"gw": {"address": "192.0.2.1", "key": Secret("key")}},
        fingerprint="f" * 64,
        needs=("a", "b"),
        order=3,
        present=True,
        stopped=True,
        best_effort=True,
        prevent_destroy=True,
        on_stop="keep",
        outputs={
            "gateway_ip": OutputValue("192.0.2.1"),
            "password": OutputValue({"deep": ["hunter2"]}, sensitive=True),
            "mixed": OutputValue({"public": 1, "private": Secret("p")}),
            "nothing": OutputValue(None),
        },
        links=(ConsoleLink("VPC", "https://console.example/vpc"),),
        folder="/srv/hybrid",
        applied_at=NOW,
    )


def line(text: str, stage: str = "cloud", run_id: str = "run-0001") -> LogLine:
    """A log line as it is handed in: the store gives the number."""
    return LogLine(run_id, 0, NOW, stage, 1, "out", text)


async def started(store: Store, run_id: str = "run-0001") -> Lease:
    """The lease of a deployment that exists, with a run begun."""
    if await store.deployment(HYBRID) is None:
        await store.save_deployment(DeploymentRecord(HYBRID))
    lease = await store.acquire(lease_of("ann", run_id), NOW)
    await store.begin_run(RunRecord(run_id, HYBRID, Verb.UP, started_at=NOW, epoch=lease.epoch), lease)
    return lease


def batch(*events: Event) -> Batch:
    """Events as one batch, a second apart."""
    return Batch(tuple((NOW + place, event) for place, event in enumerate(events)))


class Handles:
    """The fixtures of all parts of the suite."""

    @pytest.fixture
    async def handles(self, opener: Opener) -> AsyncIterator[Opener]:
        """`opener`, closing what it opened."""
        opened: list[Store] = []

        def another() -> Store:
            opened.append(opener())
            return opened[-1]

        yield another
        for handle in opened:
            await handle.close()

    @pytest.fixture
    def store(self, handles: Opener) -> Store:
        """A handle."""
        return handles()
