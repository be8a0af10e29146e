"""Decides where a stage's state lives, and reads it.

Kept state is sealed by `ctx.kept`; the tools get it from our endpoint alone and it lies in no file, except where a tool
could not push it and saved it beside itself: that is taken up when it is newer, so nothing that was created is lost.
"""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Stream
from skyspan.model.address import StageAddress
from skyspan.model.error import StageError
from skyspan.model.value import OutputValue
from skyspan.providers.terraform.endpoint.vault import KEPT_STATE, replace_state
from skyspan.providers.terraform.hcl import Facts
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.worktree import write_private

KEPT_ERRORED = "state-errored"
ERRORED = "errored"
"""Names, in place of a serial, the state that a tool saved beside itself and that was not taken up."""


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
        older = "run `tofu apply` or `terraform apply` of version 1.x once to renew it"
        newer = (
            "a newer tool wrote it: go on with a Skyspan that knows that tool, or with an earlier version of the state"
        )
        raise StageError(msg, hint=newer if isinstance(version, int) and version > 4 else older)
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


def pulling_errored(address: StageAddress) -> str:
    """The command that shows the state that was kept aside."""
    return f"skyspan state pull {address.deployment.name} --stage {address.name} --version {ERRORED}"


def pushing_errored(address: StageAddress) -> str:
    """The command that lets the state that was kept aside stand."""
    return f"skyspan state rollback {address.deployment.name} --stage {address.name} --to {ERRORED}"


async def look(ctx: ReadContext, left: Sequence[Path]) -> State | None:
    """The kept state, or what trouble left at one of `left` when that is newer. Changes nothing; None for none."""
    kept = await ctx.kept.get(KEPT_STATE)
    state = _newest(ctx, kept, *left)
    if state and state.data != kept:
        ctx.report.line(f"taking up the state that an interrupted run left behind (serial {state.serial})")
    return state


async def collect(ctx: StageContext, left: Sequence[Path], dumped: bytes = b"") -> State | None:
    """As `look`, and seal what was found; the files go. One that is not newer is kept aside as `state-errored`.

    `dumped` is a state that a command of ours told because it could save it nowhere: it is the newest there is.
    """
    before = await ctx.kept.get(KEPT_STATE)
    if dumped:
        ctx.report.line("taking up the state that the tool told as it could save it nowhere")
        before = _with_lineage(dumped)
        why = "by what a tool told that could save it nowhere"
        await replace_state(ctx.kept, before, ctx.clock.now(), ctx.epoch, why)
    state = await look(ctx, left)
    if state and state.data != before:
        why = "by a file that an interrupted run left"
        await replace_state(ctx.kept, state.data, ctx.clock.now(), ctx.epoch, why)
    for path in left:
        data = _content(path)
        if data and (state is None or data != state.data):
            await ctx.kept.put(KEPT_ERRORED, data)
            ctx.report.line(f"{path.name} is not newer than the state that stands; it is kept as {KEPT_ERRORED}")
            ctx.report.line(f"should it stand all the same: {pushing_errored(ctx.address)}")
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
            raise StageError(msg, detail=detail, hint=_which_of_two(ctx, path))
        if best is None or left.serial > best.serial:
            best = left
    return best


def _which_of_two(ctx: ReadContext, path: Path) -> str:
    place = f"{ctx.address.deployment.name} --stage {ctx.address.name}"
    push = f"skyspan state push {place} --force --yes < {shlex.quote(str(path))}"
    return f"look into both (skyspan state pull {place}); then remove {path}, or let it stand: {push}"


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
        return _with_lineage(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        return None


def _with_lineage(data: bytes) -> bytes:
    """The state, with a lineage: what a tool could not push the very first time has none yet (both tools write
    `errored.tfstate` so), and would be taken for no state at all. The same data get the same one."""
    try:
        document = json.loads(data)
    except ValueError:
        return data
    if not isinstance(document, dict) or document.get("lineage") != "" or "serial" not in document:
        return data
    return json.dumps({**document, "lineage": str(uuid.uuid5(uuid.NAMESPACE_OID, data.hex()))}).encode()
