"""Decides where a stage's state lives, reads it, and moves it between its sealed and its working place.

Kept state is sealed by `ctx.kept` and lies in clear, mode 0600, only while a writing command runs. A run that was
killed leaves it there: the next verb takes it up when it is newer, so nothing that was created is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Stream
from skyspan.model.error import Retry, StageError
from skyspan.model.value import OutputValue
from skyspan.providers.terraform.hcl import Facts
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.worktree import WorkTree, write_private

KEPT_STATE = "state"


class Keeper(StrEnum):
    """Who keeps a stage's state."""

    SKYSPAN = "skyspan"
    BACKEND = "backend"


def decide_keeper(spec: TerraformSpec, facts: Facts, *, rehearsal: bool) -> Keeper:
    """Where state lives: with Skyspan, unless the configuration declares a backend of its own.

    In a rehearsal it is always kept by Skyspan: a stand-in world must never touch the real state.
    """
    own = facts.backend and spec.backend == "auto" and not rehearsal
    return Keeper.BACKEND if own else Keeper.SKYSPAN


def backend_override(keeper: Keeper, facts: Facts) -> dict[str, Any]:
    """Configuration that takes a declared backend or cloud block out of play where Skyspan keeps the state."""
    return {"terraform": {"backend": {"local": {}}}} if keeper is Keeper.SKYSPAN and facts.backend else {}


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in the state."""

    address: str
    type: str
    attributes: Mapping[str, Any] = field(repr=False)
    tainted: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What a state file says. `data` is the file itself: secrets in clear."""

    lineage: str
    serial: int
    outputs: Mapping[str, OutputValue] = field(default_factory=dict, repr=False)
    instances: tuple[Instance, ...] = ()
    data: bytes = field(default=b"", repr=False)

    @property
    def empty(self) -> bool:
        """Whether nothing exists: neither objects nor outputs."""
        return not self.instances and not self.outputs

    @property
    def fingerprint(self) -> str:
        """Changes with every change of the state."""
        return f"{self.lineage}:{self.serial}"


NO_STATE = State("", 0)
"""Where nothing has been made yet."""


def parse_state(data: bytes) -> State:
    """The state in `data` (format version 4). Raises StageError when it cannot be read."""
    try:
        document = json.loads(data)
        version = document["version"] if "encrypted_data" not in document else 4
        lineage, serial = str(document["lineage"]), int(document["serial"])
    except (ValueError, KeyError, TypeError) as error:
        msg = "the state cannot be read: it is damaged or no state at all"
        raise StageError(msg, detail=f"{type(error).__name__} in {len(data)} bytes") from error
    if "encrypted_data" in document:
        msg = "the state is encrypted by the configuration's own `encryption` block, so its outputs cannot be read"
        raise StageError(msg, hint="remove that block: Skyspan seals the state it keeps")
    if version != 4:
        msg = f"the state has format version {version}, which this Skyspan cannot read"
        raise StageError(msg, hint="run `tofu apply` or `terraform apply` of version 1.x once to renew it")
    outputs = {
        name: OutputValue(output.get("value"), bool(output.get("sensitive", False)))
        for name, output in (document.get("outputs") or {}).items()
    }
    return State(lineage, serial, outputs, tuple(_instances(document)), data)


def _instances(document: Mapping[str, Any]) -> Iterator[Instance]:
    for resource in document.get("resources") or ():
        if resource.get("mode") != "managed":
            continue
        module = f"{resource['module']}." if resource.get("module") else ""
        for instance in resource.get("instances") or ():
            key = instance.get("index_key")
            suffix = "" if key is None else f"[{json.dumps(key)}]"
            address = f"{module}{resource['type']}.{resource['name']}{suffix}"
            tainted = instance.get("status") == "tainted"
            yield Instance(address, str(resource["type"]), instance.get("attributes") or {}, tainted)


async def look(ctx: ReadContext, tree: WorkTree) -> State | None:
    """The kept state, or what a killed run left when that is newer. Changes nothing; None when there is none."""
    kept = await ctx.kept.get(KEPT_STATE)
    if _user_of(tree.state):  # A command is writing it right now: what was kept is the last complete state.
        return parse_state(kept) if kept is not None else None
    state = _newest(ctx, kept, tree.state)
    if state and state.data != kept:
        ctx.report.line(f"taking up the state that an interrupted run left behind (serial {state.serial})")
    return state


@contextlib.asynccontextmanager
async def opened(ctx: StageContext, tree: WorkTree, folder: Path) -> AsyncIterator[State | None]:
    """The state in clear at `tree.state` for a writing command; sealed again and removed after it, however that ended.

    When sealing fails the file stays, for the next run to take up. Raises StageError to be tried later while another
    process still works on it.
    """
    user = _user_of(tree.state)
    if user:
        msg = "an earlier command still works on this stage's state"
        hint = "wait for it to end, or interrupt it and give it time to save"
        raise StageError(msg, detail=user, hint=hint, retry=Retry.LATER)
    state = await look(ctx, tree)
    if state:
        write_private(tree.state, state.data)
    try:
        yield state
    finally:
        await _completed(_seal(ctx, tree, folder))


def addresses_on_disk(tree: WorkTree) -> frozenset[str]:
    """What the state in the work tree knows, as a command that was killed has left it."""
    try:
        return frozenset(instance.address for instance in parse_state(tree.state.read_bytes()).instances)
    except (OSError, StageError):
        return frozenset()


async def _seal(ctx: StageContext, tree: WorkTree, folder: Path) -> None:
    kept = await ctx.kept.get(KEPT_STATE)
    # The tool writes errored.tfstate where it could not write its state file: on a full disk, say.
    state = _newest(ctx, kept, tree.state, folder / "errored.tfstate")
    if state and state.data != kept:
        await ctx.kept.put(KEPT_STATE, state.data)
    for path in (tree.state, folder / "errored.tfstate", *tree.state.parent.glob("*.backup")):
        path.unlink(missing_ok=True)
    (tree.state.parent / f".{tree.state.name}.lock.info").unlink(missing_ok=True)


async def _completed(work: Any) -> None:
    """Finish `work` even when we are cancelled meanwhile, then be cancelled."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled:
        raise cancelled


def _newest(ctx: ReadContext, kept: bytes | None, *paths: Path) -> State | None:
    best = parse_state(kept) if kept is not None else None
    for path in paths:
        left = _left_behind(ctx, path)
        if left is None or (best and left.data == best.data):
            continue
        if best and left.lineage != best.lineage:
            msg = f"two different states of this stage: the kept one, and {path}"
            detail = f"kept: {_told(best)}; file: {_told(left)}"
            raise StageError(msg, detail=detail, hint=f"look into both, then remove {path} or move it away")
        if best is None or left.serial > best.serial:
            best = left
    return best


def _told(state: State) -> str:
    return f"{state.fingerprint}, {len(state.instances)} objects"


def _left_behind(ctx: ReadContext, path: Path) -> State | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if not data.strip():
        return None
    try:
        return parse_state(data)
    except StageError as error:
        aside = path.with_name(f"damaged-{path.name}")
        write_private(aside, data)
        text = f"{path.name} of an interrupted run is damaged and not used: {error.detail}; a copy is {aside}"
        ctx.report.line(text, Stream.ERR)
        return None


def _user_of(path: Path) -> str:
    """Who works on that state file, or nothing: the tools hold a POSIX lock on it, also when their engine has died."""
    try:
        with path.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except OSError as error:
        info = path.with_name(f".{path.name}.lock.info")
        who = re.search(r'"Who":"([^"]*)"', info.read_text()) if info.exists() else None
        return f"held by {who[1]}" if who else str(error)
    return ""
