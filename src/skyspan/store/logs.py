"""The merged log of each run, in chunks of many lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from skyspan.contracts.store import Lease, LogBlock, LogLine
from skyspan.model.error import NotFoundError
from skyspan.store.codec import reading, to_json
from skyspan.store.database import Row, Transaction
from skyspan.store.leases import fence
from skyspan.store.tables import log_chunks, runs

_CHUNK = 1000
"""The most lines of a chunk."""

_PAGE = 32
"""How many chunks are read at once."""

_NEXT_SEQ = (
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"))
    .values(log_seq=runs.c.log_seq + sa.bindparam("added"))
    .returning(runs.c.log_seq)
)
_ADD = sa.insert(log_chunks)
_CHUNKS = (
    sa.select(log_chunks.c.last_seq, log_chunks.c.batch_seq, log_chunks.c.stage, log_chunks.c.lines)
    .where(log_chunks.c.run_id == sa.bindparam("run_id"), log_chunks.c.last_seq > sa.bindparam("after"))
    .order_by(log_chunks.c.last_seq)
    .limit(_PAGE)
)
_CHUNKS_OF_STAGE = _CHUNKS.where(log_chunks.c.stage == sa.bindparam("stage"))


def append_log(tx: Transaction, lines: Sequence[LogLine], lease: Lease | None) -> None:
    """Add lines, giving each the next number of its run; raises FencedError for a stale lease."""
    if lease is not None:
        fence(tx, lease.deployment, lease.epoch)
    if isinstance(lines, LogBlock):
        tx.change(_ADD, *_block(lines, _numbered(tx, lines.run_id, len(lines))))
        return
    by_run: dict[str, list[LogLine]] = {}
    for line in lines:
        by_run.setdefault(line.run_id, []).append(line)
    for run_id, mine in by_run.items():
        tx.change(_ADD, *_chunks(run_id, _numbered(tx, run_id, len(mine)), mine))


def _numbered(tx: Transaction, run_id: str, count: int) -> int:
    """The first of the next `count` numbers of the run."""
    last: int | None = tx.execute(_NEXT_SEQ, {"run": run_id, "added": count}).scalar()
    if last is None:
        raise NotFoundError(f"there is no run {run_id}")
    return last - count + 1


def _block(block: LogBlock, first: int) -> Iterable[dict[str, Any]]:
    """The rows for a block, numbered from `first`: its lines are not looked at one by one."""
    for start in range(0, len(block), _CHUNK):
        texts = block.texts[start : start + _CHUNK]
        yield {
            "run_id": block.run_id,
            "last_seq": first + start + len(texts) - 1,
            "batch_seq": first,
            "stage": block.stage,
            "lines": to_json([[first + start], [block.at], [block.attempt], [block.stream], texts]),
        }


def read_log(tx: Transaction, run_id: str, stage: str | None, after: int, limit: int) -> Sequence[LogLine]:
    """Lines with `seq` above `after`, all stages or one."""
    query = _CHUNKS if stage is None else _CHUNKS_OF_STAGE
    values = {"run_id": run_id, "after": after} | ({} if stage is None else {"stage": stage})
    found: list[LogLine] = []
    while True:
        rows = tx.execute(query, values).all()
        for row in rows:
            # Chunks of one batch interleave, so a full answer is final only when the next batch begins.
            if len(found) >= limit and row.batch_seq > found[-1].seq:
                return _first(found, limit)
            with reading(f"the log of the run {run_id}"):
                found.extend(line for line in _lines(run_id, row) if line.seq > after)
        if len(rows) < _PAGE:
            return _first(found, limit)
        values["after"] = rows[-1].last_seq


def _first(found: list[LogLine], limit: int) -> list[LogLine]:
    found.sort(key=_seq)
    return found[:limit]


def _seq(line: LogLine) -> int:
    return line.seq


def _chunks(run_id: str, first: int, lines: Sequence[LogLine]) -> Iterable[dict[str, Any]]:
    """The rows for `lines`, numbered from `first`: one or more for each stage, so that one stage is read alone."""
    by_stage: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        by_stage.setdefault(line.stage, []).append(place)
    for stage, places in by_stage.items():
        for start in range(0, len(places), _CHUNK):
            part = places[start : start + _CHUNK]
            yield {
                "run_id": run_id,
                "last_seq": first + part[-1],
                "batch_seq": first,
                "stage": stage,
                "lines": _packed([first + place for place in part], [lines[place] for place in part]),
            }


def _packed(seqs: list[int], lines: Sequence[LogLine]) -> str:
    """Column by column, a column of equal values once: most of a log is text."""
    if seqs[-1] - seqs[0] == len(seqs) - 1:
        seqs = seqs[:1]
    columns: list[Any] = [
        seqs,
        _column([line.at for line in lines]),
        _column([line.attempt for line in lines]),
        _column([line.stream for line in lines]),
        [line.text for line in lines],
    ]
    return to_json(columns)


def _column(values: list[Any]) -> list[Any]:
    return values[:1] if values.count(values[0]) == len(values) else values


def _lines(run_id: str, row: Row) -> Iterable[LogLine]:
    seqs, ats, attempts, streams, texts = json.loads(row.lines)
    count = len(texts)
    if len(seqs) != count:
        seqs = range(seqs[0], seqs[0] + count)
    if len(ats) != count:
        ats = ats * count
    if len(attempts) != count:
        attempts = attempts * count
    if len(streams) != count:
        streams = streams * count
    for seq, at, attempt, stream, text in zip(seqs, ats, attempts, streams, texts, strict=True):
        yield LogLine(run_id, seq, at, row.stage, attempt, stream, text)
