"""Decides where a stage's state lives, and reads it.

Kept state is sealed by `ctx.kept`; the tools get it from our endpoint alone and it lies in no file, except where a tool
could not push it and saved it beside itself: that is taken up when it is newer, so nothing that was created is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Stream
from skyspan.model.error import StageError
from skyspan.model.value import OutputValue
from skyspan.providers.terraform.endpoint.vault import KEPT_STATE, replace_state
from skyspan.providers.terraform.hcl import Facts
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.worktree import write_private

KEPT_ERRORED = "state-errored"


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


def backend_override(keeper: Keeper) -> dict[str, Any]:
    """Configuration that leads to our endpoint where Skyspan keeps the state; a declared backend is out of play then.

    It names no address: that comes by the environment, as it differs from verb to verb.
    """
    return {"terraform": {"backend": {"http": {}}}} if keeper is Keeper.SKYSPAN else {}


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in the state; `deposed` is one that its successor has replaced and that is still to be destroyed."""

    address: str
    type: str
    attributes: Mapping[str, Any] = field(repr=False)
    tainted: bool = False
    deposed: bool = False


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
    def known(self) -> dict[str, str]:
        """What exists: the id of each object by its address."""
        return {item.address: str(item.attributes.get("id") or "") for item in self.instances if not item.deposed}

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
            deposed = bool(instance.get("deposed"))
            yield Instance(address, str(resource["type"]), instance.get("attributes") or {}, tainted, deposed)


async def look(ctx: ReadContext, left: Sequence[Path]) -> State | None:
    """The kept state, or what trouble left at one of `left` when that is newer. Changes nothing; None for none."""
    kept = await ctx.kept.get(KEPT_STATE)
    state = _newest(ctx, kept, *left)
    if state and state.data != kept:
        ctx.report.line(f"taking up the state that an interrupted run left behind (serial {state.serial})")
    return state


async def collect(ctx: StageContext, left: Sequence[Path]) -> State | None:
    """As `look`, and seal what was found; the files go. One that is not newer is kept aside as `state-errored`."""
    before = await ctx.kept.get(KEPT_STATE)
    state = await look(ctx, left)
    if state and state.data != before:
        await replace_state(ctx.kept, state.data, ctx.clock.now(), ctx.epoch)
    for path in left:
        data = _content(path)
        if data and (state is None or data != state.data):
            await ctx.kept.put(KEPT_ERRORED, data)
            ctx.report.line(f"{path.name} is not newer than the state that stands; it is kept as {KEPT_ERRORED}")
        if data is not None:
            path.unlink(missing_ok=True)
    return state


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
    data = _content(path)
    if data is None or not data.strip():
        return None
    try:
        return parse_state(data)
    except StageError as error:
        aside = path.with_name(f"damaged-{path.name}")
        write_private(aside, data)
        text = f"{path.name} of an interrupted run is damaged and not used: {error.detail}; a copy is {aside}"
        ctx.report.line(text, Stream.ERR)
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
