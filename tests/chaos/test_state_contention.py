"""Two real tools want one state: one holder at a time, who is named; what comes too late is refused and not kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from skyspan.contracts.context import StageContext
from skyspan.contracts.store import DeploymentRecord, Lease
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Observation
from skyspan.model.error import FencedError, Retry, StageError, StateLockedError
from skyspan.model.lifecycle import Verb
from skyspan.providers.terraform import by_hand, writing
from skyspan.providers.terraform.configuration import read_configuration
from skyspan.providers.terraform.endpoint.vault import read_lock
from skyspan.providers.terraform.holder import Holder, processes_of, this_machine
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.session import Session, open_session
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.writing import at_work
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.provider_world import FoundTools, ProviderWorld, RealClock, SteppingClock
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.chaos

PATH = f"{Path(__file__).resolve().parents[2] / '.tools' / 'bin'}:{os.environ['PATH']}"

Tool = Literal["tofu", "terraform"]

GATED = """
resource "terraform_data" "a" {
  input = "%(who)s"
  provisioner "local-exec" {
    command = "touch %(folder)s/begun; while [ ! -e %(folder)s/go ]; do sleep 0.05; done"
  }
}
output "who" {
  value = "%(who)s"
}
"""


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH})
    yield transport
    await transport.close()


@dataclass
class Party:
    """One who works on the stage: with a tool and a folder of its own, and a gate that keeps its apply under way."""

    folder: Path
    here: LocalTransport
    tool: Tool
    provider: TerraformProvider = field(default_factory=TerraformProvider)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.world = ProviderWorld(self.folder, {None: self.here}, tools=FoundTools(PATH))
        (self.world.folder / "cloud").mkdir()
        text = GATED % {"who": self.folder.name, "folder": self.folder}
        (self.world.folder / "cloud" / "main.tf").write_text(text)
        self.spec = TerraformSpec(source="cloud", tool=self.tool)

    def go(self) -> None:
        (self.folder / "go").touch()

    async def begun(self) -> None:
        for _ in range(600):
            if (self.folder / "begun").exists():
                return
            await asyncio.sleep(0.05)
        pytest.fail("the tool never began")

    def writing(self, run: str = "") -> StageContext:
        return replace(self.world.writing(), attempt_id=f"{run}.1" if run else "")


@pytest.fixture
def parties(tmp_path: Path, here: LocalTransport) -> Iterator[Any]:
    made: list[Party] = []

    def party(name: str, tool: Tool) -> Party:
        made.append(Party(tmp_path / name, here, tool))
        return made[-1]

    yield party
    for each in made:
        each.go()


def sharing(session: Session, other: Session, **environment: str) -> Session:
    """The session with its tool at the other one's endpoint."""
    merged = {**session.invocation.environment, **other.endpoint.environment(locking=True), **environment}
    return replace(session, endpoint=other.endpoint, invocation=replace(session.invocation, environment=merged))


@pytest.mark.parametrize(("first", "second"), [("tofu", "terraform"), ("terraform", "tofu")])
async def test_the_second_tool_is_told_who_holds_the_state_and_goes_on_once_that_is_done(
    first: Tool, second: Tool, parties: Any
) -> None:
    one, two = parties("one", first), parties("two", second)
    ctx = one.writing("run-7")
    files = [read_configuration(each.world.folder, "cloud", each.world.work) for each in (one, two)]
    async with (
        open_session(one.spec, ctx, files[0]) as session,
        open_session(two.spec, two.writing(), files[1]) as late,
        at_work(session, ctx, {}) as (holding, _),
    ):
        saved = (await holding.plan(None, refresh=True, save=True)).saved
        assert saved is not None
        applying = asyncio.ensure_future(holding.apply(saved))
        await one.begun()
        late = sharing(late, holding)
        with pytest.raises(StateLockedError) as caught:
            await late.run("destroy", late.invocation.destroy())
        error = caught.value
        assert error.retry is Retry.LATER
        assert "locked by attempt 1 of run run-7 on " in error.summary
        assert " since 20" in error.summary
        assert "skyspan cancel" in error.hint
        assert "Error acquiring the state lock" in error.detail
        assert any("refused a lock" in line for line in one.world.report.lines)

        for tool, party in ((late, two), (holding, one)):
            # Terraform sends no ID with this at all, OpenTofu the one that was given.
            wrong = await party.here.run(tool.invocation.free("11111111-1111-1111-1111-111111111111"))
            assert not wrong.ok
            assert "423" in wrong.last_words()
            assert holding.endpoint.ledger.lock is not None

        patient = sharing(late, holding, TF_CLI_ARGS_destroy="-lock-timeout=30s")
        waiting = asyncio.ensure_future(patient.run("destroy", patient.invocation.destroy()))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        one.go()
        assert (await applying).completed.ok
        assert (await waiting).completed.ok, "the one who waited got the lock"
    assert json.loads(one.world.kept.data["state"])["resources"] == []
    assert "lock" not in one.world.kept.data


async def test_a_second_engine_is_told_who_works_and_takes_its_turn_afterwards(parties: Any) -> None:
    one, two = parties("one", "tofu"), parties("two", "terraform")
    two.world.kept, two.world.clock = one.world.kept, SteppingClock()
    change, planned = [
        await each.provider.plan(each.spec, Observation.absent(), each.world.reading()) for each in (one, two)
    ]
    applying = asyncio.ensure_future(one.provider.apply(one.spec, change, one.writing("run-7")))
    await one.begun()
    held = await read_lock(one.world.kept)
    assert held is not None
    assert json.loads(held.lock.info)["Info"] == str(held.holder), "whoever else asks is told too"
    with pytest.raises(StateLockedError, match="attempt 1 of run run-7 on ") as caught:
        await two.provider.apply(two.spec, planned, two.writing("run-8"))
    assert caught.value.retry is Retry.LATER
    assert str(processes_of(held.holder)[0]) in caught.value.detail
    with pytest.raises(StageError, match="still runs on this machine: attempt 1 of run run-7"):
        await by_hand.unlock(one.world.writing().kept, one.world.clock, 2)
    one.go()
    two.go()
    assert (await applying).outputs["who"].value == "one"
    seen = await two.provider.observe(two.spec, two.world.reading())
    change = await two.provider.plan(two.spec, seen, two.world.reading())
    assert (await two.provider.apply(two.spec, change, two.writing())).outputs["who"].value == "two"


@pytest.mark.parametrize("tool", ["tofu", "terraform"])
async def test_what_a_zombie_tool_pushes_after_a_take_over_is_refused_and_not_kept(
    tool: Tool, parties: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = DeploymentAddress("default", "shop").stage("cloud")
    home = tmp_path / "home"
    home.mkdir()
    store = open_store(str(home / "skyspan.db"), EnvelopeSealer(home), RealClock())
    zombie, heir = parties("zombie", tool), parties("heir", tool)
    here = this_machine()
    frozen: tuple[int, ...] = ()
    try:
        await store.save_deployment(DeploymentRecord(address.deployment, folder=str(tmp_path)))
        # Two machines on one store: from the one, the other's processes cannot be seen.
        monkeypatch.setattr(writing, "this_machine", lambda: replace(here, host="elsewhere"))
        now = 1_000.0
        first = await store.acquire(lease(address.deployment, "zombie", now + 10), now)
        ctx = replace(
            zombie.writing("run-1"), kept=store.kept(address, first.epoch), epoch=first.epoch, address=address
        )
        change = await zombie.provider.plan(zombie.spec, Observation.absent(), zombie.world.reading())
        applying = asyncio.ensure_future(zombie.provider.apply(zombie.spec, change, ctx))
        await zombie.begun()
        held = await read_lock(store.kept(address, 0))
        assert held is not None
        frozen = tools_of(held.holder)
        assert frozen
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        zombie.go()

        monkeypatch.setattr(writing, "this_machine", lambda: here)
        second = await store.acquire(lease(address.deployment, "heir", now + 100), now + 20)
        assert second.epoch > first.epoch
        kept = store.kept(address, second.epoch)
        ctx = replace(heir.writing("run-2"), kept=kept, epoch=second.epoch, address=address)
        heir.go()
        reading = replace(heir.world.reading(), kept=kept)
        with pytest.raises(StageError, match="interrupted on elsewhere still runs cannot be seen") as unseen:
            await heir.provider.plan(heir.spec, Observation.absent(), reading)
        assert "attempt 1 of run run-1 on elsewhere" in unseen.value.detail
        await by_hand.unlock(kept, heir.world.clock, second.epoch)
        change = await heir.provider.plan(heir.spec, Observation.absent(), reading)
        there = await heir.provider.apply(heir.spec, change, ctx)
        assert there.outputs["who"].value == "heir"
        after = {name: await kept.get(name) for name in ("state", "state-index", "journal", "lock")}

        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(FencedError):
            await applying
        refusals = [line for line in zombie.world.report.lines if "refused a state that was pushed" in line]
        assert refusals, zombie.world.report.lines
        assert {name: await kept.get(name) for name in after} == after, "nothing of the zombie's is kept"
        assert json.loads(after["state"] or b"")["outputs"]["who"]["value"] == "heir"
        saved = zombie.world.work / "tree" / "cloud" / "errored.tfstate"
        assert json.loads(saved.read_text())["outputs"]["who"]["value"] == "zombie", (
            "what it made is known to its machine"
        )
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await store.close()


def tools_of(holder: Holder) -> tuple[int, ...]:
    """The tool's own processes, without what they run, which comes and goes."""

    def name(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return ""

    return tuple(pid for pid in processes_of(holder) if name(pid) in ("tofu", "terraform"))


def lease(deployment: DeploymentAddress, owner: str, expires_at: float) -> Lease:
    return Lease(deployment, owner, 0, expires_at, f"run-{owner}", Verb.UP)
