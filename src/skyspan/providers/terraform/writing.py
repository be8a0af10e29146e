"""A session that may write: proves that nobody else does, opens the endpoint and the journal, and closes both right."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from skyspan.contracts.context import Kept, ReadContext, StageContext
from skyspan.contracts.transport import Stream
from skyspan.model.error import Retry, StageError, StateLockedError
from skyspan.model.value import digest
from skyspan.providers.terraform.endpoint.server import Refusal
from skyspan.providers.terraform.endpoint.vault import Vault, read_lock, replace_state
from skyspan.providers.terraform.finishing import completed
from skyspan.providers.terraform.holder import ATTEMPT_VARIABLE, Holder, Standing, processes_of, standing, this_machine
from skyspan.providers.terraform.journal import KEPT_JOURNAL, Creation, Journal
from skyspan.providers.terraform.lookup import tagging_environment
from skyspan.providers.terraform.recorder import Recorder
from skyspan.providers.terraform.rescue import without_destroyed
from skyspan.providers.terraform.session import Session
from skyspan.providers.terraform.state import KEPT_ERRORED, Keeper, State, collect, pulling_errored

_WAIT_S = 5.0
_POLL_S = 0.2


async def read_journal(kept: Kept) -> Journal:
    """What the last commands said they did and no state holds yet; empty after a good end."""
    return Journal.load(await kept.get(KEPT_JOURNAL))


async def is_at_work(kept: Kept, journal: Journal) -> bool:
    """Whether a command of an earlier attempt still runs, as far as it can be seen from here."""
    return any(standing(holder) is Standing.ALIVE for holder in await _holders(kept, journal))


async def prove_dead(ctx: ReadContext, journal: Journal) -> None:
    """Return once nothing of an earlier attempt runs any more.

    Raises StageError: to be tried later while something does, never when that cannot be known from here.
    """
    give_up = ctx.clock.monotonic() + _WAIT_S
    for holder in await _holders(ctx.kept, journal):
        while (found := standing(holder)) is Standing.ALIVE:
            if ctx.clock.monotonic() >= give_up:
                msg = f"an earlier command still works on this stage's state: {holder}"
                ids = ", ".join(str(pid) for pid in processes_of(holder))
                hint = f"wait for it to end, or stop it in order: skyspan cancel {ctx.address.deployment.name}"
                raise StateLockedError(msg, detail=f"processes: {ids}", hint=hint)
            await ctx.clock.sleep(_POLL_S)
        if found is Standing.UNKNOWN:
            place = ctx.address
            host = holder.machine.host
            msg = f"whether the command that was interrupted on {host} still runs cannot be seen from here"
            hint = f"run this on {host}; or, once you are sure that it has ended there: "
            hint += f"skyspan state unlock {place.deployment.name} --stage {place.name}"
            raise StageError(msg, detail=f"it is {holder}", hint=hint, retry=Retry.NEVER)


@contextlib.asynccontextmanager
async def at_work(
    session: Session, ctx: StageContext, creations: Mapping[str, Creation]
) -> AsyncIterator[tuple[Session, State | None]]:
    """The session, able to write, and the state that stands. However the block ends, state and journal are safe then,
    or stay for the next verb to take up."""
    journal = await read_journal(ctx.kept)
    await prove_dead(ctx, journal)
    run = ctx.attempt_id.rpartition(".")[0]
    holder = Holder(_name(ctx), this_machine(), run=run, number=ctx.attempt, since=ctx.clock.now())
    vault = Vault(ctx.kept, ctx.clock, holder, ctx.epoch)
    await _break_lock(ctx, vault)
    session = replace(session, left=journal)
    state = await _standing_state(session, ctx, journal)
    if session.keeper is Keeper.SKYSPAN:
        data = state.data if state else None
        session.endpoint.open_for_writing(data, ctx.epoch, vault.perform, who=str(holder), tell=_telling(ctx))
    # From here to a message about a resource, only one who holds the state's lock can get: see `is_left_by`.
    opened = ctx.clock.now()
    begun = journal.opened(replace(holder, since=opened), creations, opened, session.configuration.digest)
    recorder = Recorder(ctx.kept, ctx.clock, begun)
    await recorder.start()
    try:
        yield _writing(session, recorder, holder), state
    finally:
        await completed(_finish(session, ctx, recorder))


def _telling(ctx: StageContext) -> Callable[[Refusal], None]:
    def tell(refusal: Refusal) -> None:
        ctx.report.line(f"the state endpoint {refusal}", Stream.ERR)

    return tell


def _name(ctx: StageContext) -> str:
    """What no other attempt at any stage is called, short enough for a tag."""
    return digest([str(ctx.address), ctx.attempt_id, ctx.epoch, ctx.attempt, ctx.clock.now()])[:20]


def _writing(session: Session, recorder: Recorder, holder: Holder) -> Session:
    environment = {
        **session.invocation.environment,
        **(session.endpoint.environment(locking=True) if session.keeper is Keeper.SKYSPAN else {}),
        **tagging_environment(holder.attempt),
        ATTEMPT_VARIABLE: holder.attempt,
    }
    return replace(session, invocation=replace(session.invocation, environment=environment), recorder=recorder)


async def _holders(kept: Kept, journal: Journal) -> Sequence[Holder]:
    held = await read_lock(kept)
    return tuple(dict.fromkeys([*journal.holders, *([held.holder] if held else [])]))


async def _break_lock(ctx: StageContext, vault: Vault) -> None:
    held = await read_lock(ctx.kept)
    if held is None:
        return
    if held.lock.epoch > ctx.epoch:
        msg = f"this stage's state is locked under a newer lease than ours, by {held.holder}"
        raise StageError(msg, hint="somebody else has taken over this deployment: see `skyspan status`")
    await vault.break_lock(held, "nothing of its holder's attempt runs any more")
    ctx.report.line(f"broke the state lock {held.lock.id}: its holder has died ({held.holder})", Stream.ERR)


async def _standing_state(session: Session, ctx: StageContext, journal: Journal) -> State | None:
    """The state to write on: what trouble left is taken up, and objects known to be destroyed are taken out."""
    if session.keeper is Keeper.BACKEND:
        await _push_errored(session, ctx)
        return await session.state()
    state = await collect(ctx, session.left_behind)
    if state is None or not (gone := journal.replaced(state.known)):
        return state
    data = without_destroyed(state.data, [(address, state.known[address]) for address in gone])
    why = "to take out objects known to be destroyed"
    await replace_state(ctx.kept, data, ctx.clock.now(), ctx.epoch, why)
    return await session.state()


async def _push_errored(session: Session, ctx: StageContext) -> None:
    """Give the configuration's own backend what a tool could not push; what it refuses is kept aside."""
    for path in session.left_behind[:1]:
        if not path.exists():
            continue
        pushed = await session.push(path)
        if not pushed.ok:
            await ctx.kept.put(KEPT_ERRORED, path.read_bytes())
            text = f"the backend does not take the state that an interrupted run saved; it is kept as {KEPT_ERRORED}"
            ctx.report.line(f"{text}: {pushed.last_words()}", Stream.ERR)
            ctx.report.line(f"to look into it: {pulling_errored(ctx.address)}", Stream.ERR)
        path.unlink(missing_ok=True)


async def _finish(session: Session, ctx: StageContext, recorder: Recorder) -> None:
    await recorder.stop()
    unlocked = session.endpoint.ledger.lock is None
    session.endpoint.close_for_writing()
    if session.keeper is Keeper.SKYSPAN:
        state = await collect(ctx, session.left_behind, recorder.dumped)
        clean = unlocked
    else:
        # What its backend holds is asked only after a good end: after a bad one the journal waits for the next verb.
        clean = recorder.exit_code is not None and recorder.exit_code >= 0
        if recorder.dumped:
            await ctx.kept.put(KEPT_ERRORED, recorder.dumped)
            text = f"the tool could save the state nowhere; it is kept as {KEPT_ERRORED}"
            ctx.report.line(f"{text}: {pulling_errored(ctx.address)}", Stream.ERR)
        try:
            state = await session.state() if clean else None
        except StageError as error:
            clean, state = False, None
            ctx.report.line(f"what the backend holds now is not known: {error.summary}", Stream.ERR)
    ok = clean and recorder.exit_code == 0
    left = recorder.journal.closed(state.known if state else {}, clean=clean, ok=ok)
    if left.empty and clean:
        await ctx.kept.remove(KEPT_JOURNAL)
    else:
        await ctx.kept.put(KEPT_JOURNAL, left.dump())
    session.endpoint.raise_failure()
