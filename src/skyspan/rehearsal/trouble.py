"""A declared trouble: it happens, `check` has to tell of it, `up` has to repair it and to leave alone what is well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeAlias

from skyspan.contracts.transport import Completed
from skyspan.model.error import SkyspanError
from skyspan.rehearsal.instructions import make
from skyspan.rehearsal.report import Finding
from skyspan.rehearsal.spec import Trouble
from skyspan.rehearsal.world import World

AGAIN_S = 0.5
"""How long to wait before `check` is asked again, in seconds."""

COMMAND_S = 60.0
"""How long `run` and `keeps` may take, in seconds."""

LEFT_ALONE = frozenset({"unchanged", "skipped"})
"""Statuses of stages that a run which succeeded did not touch; one that its own `if` leaves out is skipped."""

Document: TypeAlias = Mapping[str, Any]
"""What a verb says with `--json`."""

Ask: TypeAlias = Callable[..., Awaitable[tuple[Completed, Document]]]
"""Runs a verb with its options on the deployment: how it ended, and what it says of its run and its stages."""


class Ordeal:
    """One trouble of a deployment in a running world; `ask` runs the command line. Its parts come in order."""

    def __init__(self, trouble: Trouble, world: World, ask: Ask) -> None:
        self._trouble = trouble
        self._world = world
        self._ask = ask
        self._kept = ""
        self._wrong: Mapping[str, str] = {}
        self._happened = 0.0

    async def happen(self) -> Finding:
        """Look at what has to stay, then let it go wrong."""
        trouble = self._trouble
        kept = await self._kept_now()
        if isinstance(kept, Finding):
            return kept
        self._kept, self._happened = kept, monotonic()
        if trouble.fault is not None:
            try:
                await make(self._world, trouble.fault.split())
            except SkyspanError as error:
                said = "\n".join(line for line in (error.detail, error.hint) if line)
                return Finding(f"the fault could not be: {error.summary}\n{said}".rstrip())
            return Finding()
        done = await self._on_host(trouble.run)
        return Finding() if done.ok else Finding(_failed("run", trouble, done), done.exit_code)

    async def told(self) -> Finding:
        """Ask `check` until it tells of it, for as long as that may take."""
        until = self._happened + self._trouble.within
        while True:
            completed, said = await self._ask("check")
            self._wrong = wrong(said)
            fault = unnoticed(self._trouble, self._wrong)
            if not fault or monotonic() > until:
                break
            await asyncio.sleep(AGAIN_S)
        if fault:
            if not self._wrong and not completed.ok:
                fault += f"\n{completed.last_words()}"
            return Finding(fault, completed.exit_code, statuses(said))
        named = self._wrong[self._trouble.stage]
        figures = {"named": named, "told_s": round(monotonic() - self._happened, 3)}
        return Finding("", completed.exit_code, statuses(said), figures)

    async def repaired(self) -> Finding:
        """Let `up` repair it, and see that it did so and touched nothing else."""
        completed, said = await self._ask("up", "--yes")
        took = round(monotonic() - self._happened, 3)
        fault = unrepaired(self._trouble, completed.exit_code, said, self._wrong)
        kept = "" if fault else await self._kept_now()
        if isinstance(kept, Finding):
            return kept
        if not fault and kept != self._kept:
            fault = f"`keeps` says something else than before the trouble\nbefore: {self._kept}\nafter: {kept}"
        if fault and not completed.ok:
            fault += f"\n{completed.last_words()}"
        changed = [name for name, one in statuses(said).items() if one not in LEFT_ALONE]
        return Finding(fault, completed.exit_code, statuses(said), {"changed": changed, "repaired_s": took})

    async def _kept_now(self) -> str | Finding:
        if self._trouble.keeps is None:
            return ""
        done = await self._on_host(self._trouble.keeps)
        return done.text().strip() if done.ok else Finding(_failed("keeps", self._trouble, done), done.exit_code)

    async def _on_host(self, command: str | None) -> Completed:
        assert self._trouble.host is not None and command is not None, "the section was validated"
        return await self._world.on(self._trouble.host, "sh", "-euc", command, timeout_s=COMMAND_S)


def statuses(said: Document) -> Mapping[str, str]:
    """Each stage's status."""
    return {one["name"]: one["status"] for one in said.get("stages", ())}


def wrong(said: Document) -> Mapping[str, str]:
    """What a check says of each stage with which something is wrong (pure)."""
    return {one["name"]: one.get("reason", "") for one in said.get("stages", ()) if one["status"] == "failed"}


def unnoticed(trouble: Trouble, failed: Mapping[str, str]) -> str:
    """Why a check did not tell of the trouble, or an empty text (pure). `failed` are stages and why."""
    if trouble.named in failed.get(trouble.stage, ""):
        return ""
    others = "".join(f"\n{name}: {reason}" for name, reason in failed.items())
    if trouble.stage not in failed:
        also = ", but of these:" + others if others else ""
        return f"nobody noticed: `skyspan check` finds nothing wrong with the stage {trouble.stage}{also}"
    return f"`skyspan check` does not name {trouble.named!r}:{others}"


def unrepaired(trouble: Trouble, exit_code: int, said: Document, was_wrong: Mapping[str, str]) -> str:
    """What is wrong after the `up` that was to repair the trouble, or an empty text (pure).

    `was_wrong` are the stages that the check failed: these may be applied, and no other.
    """
    stages = statuses(said)
    run = said.get("run") or {}
    if exit_code != 0 or run.get("status") != "succeeded":
        reasons = "".join(f"\n{name}: {reason}" for name, reason in wrong(said).items())
        return f"not repaired: `skyspan up` ended with {exit_code}, {run.get('status', 'without a word')}{reasons}"
    if stages.get(trouble.stage) != "succeeded":
        return f"not repaired: `skyspan up` left the stage {trouble.stage} {stages.get(trouble.stage, 'out')}"
    touched = [f"{name} ({one})" for name, one in stages.items() if one not in LEFT_ALONE and name not in was_wrong]
    return f"touched although the check found nothing wrong with it: {', '.join(touched)}" if touched else ""


def _failed(key: str, trouble: Trouble, done: Completed) -> str:
    how = f"did not end within {COMMAND_S:.0f} s" if done.timed_out else f"ended with {done.exit_code}"
    return f"`{key}` {how} on {trouble.host}\n{done.last_words()}".rstrip()
