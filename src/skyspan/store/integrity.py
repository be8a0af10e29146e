"""A look through the whole store: what cannot be right, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace

import sqlalchemy as sa

from skyspan.contracts.projection import project_run, project_stage, stage_named, stages_of
from skyspan.contracts.store import RunRecord, StageRunRecord
from skyspan.contracts.upkeep import Flaw, Survey
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import StoreCorruptError
from skyspan.model.event import RunStarted
from skyspan.model.lifecycle import DeploymentStatus, RunStatus, after_run, while_running
from skyspan.store.codec import plain
from skyspan.store.database import Row, Transaction
from skyspan.store.paging import rows_of
from skyspan.store.resealing import opens, sealed_values
from skyspan.store.runs import find_run, list_events, list_runs, list_stage_runs
from skyspan.store.tables import deployments, events, log_chunks, runs

_RESTORE = "restore a backup: skyspan restore FILE --replace"
_PAGE = 1000
_MOST = 100
"""So many flaws of one kind are told one by one; a store with more has one trouble, not hundreds."""


def survey(tx: Transaction) -> Survey:
    """Look at the database, the numbering, the projections and every sealed value."""
    flaws = list(_database(tx))
    if flaws:
        # What a damaged file answers to further questions means nothing.
        return Survey(tuple(flaws))
    seen_runs = seen_events = seen_sealed = 0
    for row in rows_of(tx, runs):
        seen_runs += 1
        seen_events += row.event_seq
        flaws += _first(_run(tx, row))
    flaws += _first(flaw for row in rows_of(tx, deployments) for flaw in _deployment(tx, row))
    broken: list[Flaw] = []
    for value in sealed_values(tx):
        seen_sealed += 1
        error = opens(tx, value)
        if error is not None:
            broken.append(
                Flaw("sealed value", f"{value.place} of workspace {value.workspace}", error.summary, error.hint)
            )
    return Survey(tuple(flaws + broken[:_MOST]), seen_runs, seen_events, seen_sealed)


def _first(flaws: Iterator[Flaw]) -> list[Flaw]:
    return [flaw for _, flaw in zip(range(_MOST), flaws, strict=False)]


def _database(tx: Transaction) -> Iterator[Flaw]:
    """SQLite can examine its own file; PostgreSQL holds its constraints by itself and reads every row below."""
    if tx.connection.dialect.name != "sqlite":
        return
    for [told] in tx.connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if told != "ok":
            yield Flaw("database", "file", str(told), _RESTORE)
    for table, rowid, parent, _ in tx.connection.exec_driver_sql("PRAGMA foreign_key_check").all()[:_MOST]:
        yield Flaw("foreign key", f"{table} row {rowid}", f"belongs to no row of {parent}", _RESTORE)


def _run(tx: Transaction, row: Row) -> Iterator[Flaw]:
    where = f"run {row.id} of {row.workspace}/{row.deployment}"
    query = sa.select(sa.func.count(), sa.func.min(events.c.seq), sa.func.max(events.c.seq))
    number, least, most = tx.execute(query.where(events.c.run_id == row.id)).one()
    if number != row.event_seq or (number and (least, most) != (1, row.event_seq)):
        found = f"{number} events numbered {least} to {most}, {row.event_seq} were written"
        yield Flaw("event sequence", where, found, _RESTORE)
        return
    last = tx.execute(sa.select(sa.func.max(log_chunks.c.last_seq)).where(log_chunks.c.run_id == row.id)).scalar() or 0
    if last != row.log_seq:
        yield Flaw("log", where, f"ends at line {last}, {row.log_seq} were written", _RESTORE)
    try:
        yield from _projections(tx, row.id, where)
    except StoreCorruptError as error:
        yield Flaw("event", where, f"{error.summary}: {error.detail}", error.hint)


def _projections(tx: Transaction, run_id: str, where: str) -> Iterator[Flaw]:
    """Tell the events again, and compare the rows that follow from them."""
    stored = find_run(tx, run_id)
    assert stored is not None
    run, stages = _told_again(tx, stored)
    hint = f"see `skyspan events {run_id}` for what happened; {_RESTORE}"
    if run is not None and _shape(run) != _shape(stored):
        yield Flaw("projection", where, f"says {_shape(stored)}, its events say {_shape(run)}", hint)
    rows = {record.name: record for record in list_stage_runs(tx, run_id)}
    for name in sorted(stages.keys() | rows.keys()):
        expected, found = stages.get(name), rows.get(name)
        if expected is None or found is None:
            what = "has no events that made it" if expected is None else "is missing"
            yield Flaw("projection", f"stage {name} of {where}", f"the row {what}", hint)
        elif _stored_form(expected) != found:
            yield Flaw("projection", f"stage {name} of {where}", _differences(_stored_form(expected), found), hint)


def _told_again(tx: Transaction, stored: RunRecord) -> tuple[RunRecord | None, dict[str, StageRunRecord]]:
    """The run's row (None while there are no events) and its stages' rows, from the events alone."""
    run = RunRecord(stored.id, stored.deployment, stored.verb, requested_by=stored.requested_by)
    stages: dict[str, StageRunRecord] = {}
    after = 0
    while page := list_events(tx, stored.id, after, _PAGE):
        for recorded in page:
            event = recorded.event
            run = project_run(run, recorded.at, event)
            if isinstance(event, RunStarted):
                stages |= {record.name: record for record in stages_of(event, stored.id)}
            name = stage_named(event)
            if name in stages:
                stages[name] = project_stage(stages[name], recorded.at, event)
        after = page[-1].seq
    return (run if after else None), stages


def _shape(run: RunRecord) -> tuple[str, str, float, str]:
    return run.verb.value, run.status.value, run.finished_at, plain(run.reason)


def _stored_form(record: StageRunRecord) -> StageRunRecord:
    return replace(record, reason=plain(record.reason))


def _differences(expected: StageRunRecord, found: StageRunRecord) -> str:
    pairs: Mapping[str, tuple[object, object]] = {
        item.name: (getattr(found, item.name), getattr(expected, item.name)) for item in fields(expected)
    }
    told = [f"{name} is {had!r}, its events say {said!r}" for name, (had, said) in pairs.items() if had != said]
    return "; ".join(told)


def _deployment(tx: Transaction, row: Row) -> Iterator[Flaw]:
    """Its status must be what its newest run that could change something left behind."""
    where = f"deployment {row.workspace}/{row.name}"
    try:
        status = DeploymentStatus(row.status)
        history = list_runs(tx, DeploymentAddress(row.workspace, row.name), _PAGE)
    except (ValueError, StoreCorruptError) as error:
        yield Flaw("deployment", where, str(error), _RESTORE)
        return
    run = next((run for run in history if run.verb.writes and _has_begun(tx, run)), None)
    if run is None:
        return
    going = run.status is RunStatus.RUNNING
    expected = while_running(run.verb, status) if going else after_run(run.verb, status, run.status)
    if expected is not status:
        hint = f"`skyspan check {row.name}` sees how things really are; {_RESTORE}"
        yield Flaw("projection", where, f"is {status.value}, its run {run.id} left it {expected.value}", hint)


def _has_begun(tx: Transaction, run: RunRecord) -> bool:
    return bool(list_events(tx, run.id, 0, 1))
