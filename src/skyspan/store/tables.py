"""The tables of the store and the list of their revisions.

Free text and JSON are `Text`: nothing in the database ever looks inside. Times are epoch seconds. Columns named
`*_sealed` hold ciphertext bound to their place (see `codec.place`). `migrations/` must produce exactly these tables.
"""

from __future__ import annotations

import sqlalchemy as sa

REVISIONS = ("0001", "0002", "0003")
"""Every revision of the schema that this Skyspan knows, oldest first; the last one is what `TABLES` describes."""

HEAD = REVISIONS[-1]

TABLES = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Names sort by code point on both databases, whatever the language of the server."""


def _name(column: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(column, _NAME, primary_key=key, nullable=False)


def _text(column: str) -> sa.Column[str]:
    return sa.Column(column, sa.Text, nullable=False)


def _time(column: str) -> sa.Column[float]:
    return sa.Column(column, sa.Double, nullable=False)


def _count(column: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(column, sa.BigInteger, primary_key=key, autoincrement=False, nullable=False)


def _flag(column: str) -> sa.Column[bool]:
    return sa.Column(column, sa.Boolean, nullable=False)


def _sealed(column: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(column, sa.LargeBinary, nullable=nullable)


def _within(*columns: str, parent: str, keys: tuple[str, ...]) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(columns, [f"{parent}.{key}" for key in keys], ondelete="CASCADE")


def _of_deployment() -> sa.ForeignKeyConstraint:
    return _within("workspace", "deployment", parent="deployments", keys=("workspace", "name"))


def _of_run() -> sa.ForeignKeyConstraint:
    return _within("run_id", parent="runs", keys=("id",))


versions = sa.Table(
    "alembic_version",
    TABLES,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table, written here when a fresh store is made without it."""

deployments = sa.Table(
    "deployments",
    TABLES,
    _name("workspace", key=True),
    _name("name", key=True),
    _text("status"),
    _text("health"),
    _text("folder"),
    _text("last_run"),
    _time("created_at"),
    _time("updated_at"),
)

compositions = sa.Table(
    "compositions",
    TABLES,
    _name("workspace", key=True),
    _name("deployment", key=True),
    _sealed("composition_sealed"),
    _sealed("inputs_sealed"),
    _of_deployment(),
)
"""Beside `deployments`, so that listing those does not read through the files."""

stages = sa.Table(
    "stages",
    TABLES,
    _name("workspace", key=True),
    _name("deployment", key=True),
    _name("name", key=True),
    _text("uses"),
    _text("fingerprint"),
    _text("needs"),
    _count("position"),
    _flag("present"),
    _flag("stopped"),
    _flag("best_effort"),
    _flag("prevent_destroy"),
    _text("on_stop"),
    _text("folder"),
    _time("applied_at"),
    _text("links"),
    _sealed("spec_sealed"),
    _sealed("hosts_sealed", nullable=True),
    _of_deployment(),
)

outputs = sa.Table(
    "outputs",
    TABLES,
    _name("workspace", key=True),
    _name("deployment", key=True),
    _name("stage", key=True),
    _name("name", key=True),
    _count("position"),
    _flag("sensitive"),
    sa.Column("value", sa.Text),
    _sealed("value_sealed", nullable=True),
    _within("workspace", "deployment", "stage", parent="stages", keys=("workspace", "deployment", "name")),
)
"""Exactly one of `value` and `value_sealed` is set."""

kept = sa.Table(
    "kept",
    TABLES,
    _name("workspace", key=True),
    _name("deployment", key=True),
    _name("stage", key=True),
    _name("name", key=True),
    _time("updated_at"),
    _sealed("data_sealed"),
    _of_deployment(),
)

runs = sa.Table(
    "runs",
    TABLES,
    _name("id", key=True),
    _name("workspace"),
    _name("deployment"),
    _text("verb"),
    _text("status"),
    _time("started_at"),
    _time("finished_at"),
    _count("epoch"),
    _text("requested_by"),
    _text("reason"),
    _count("event_seq"),
    _count("log_seq"),
    _of_deployment(),
    sa.Index(None, "workspace", "deployment", "started_at"),
)
"""`event_seq` and `log_seq` are the last numbers given out."""

stage_runs = sa.Table(
    "stage_runs",
    TABLES,
    _name("run_id", key=True),
    _name("name", key=True),
    _text("uses"),
    _text("status"),
    _text("change"),
    _count("attempt"),
    _time("started_at"),
    _time("finished_at"),
    _text("reason"),
    _text("outputs"),
    sa.Column("error", sa.Text),
    _count("position"),
    _of_run(),
    # Small rows that are read in the order of their key need no second tree on SQLite.
    sqlite_with_rowid=False,
)

events = sa.Table(
    "events",
    TABLES,
    _name("run_id", key=True),
    _count("seq", key=True),
    _time("at"),
    _text("kind"),
    _text("payload"),
    _of_run(),
    sqlite_with_rowid=False,
)

log_chunks = sa.Table(
    "log_chunks",
    TABLES,
    _name("run_id", key=True),
    _count("last_seq", key=True),
    _count("batch_seq"),
    _name("stage"),
    _text("lines"),
    _of_run(),
    sa.Index(None, "run_id", "stage", "last_seq"),
)
"""Lines of one stage that were written together. Batches never overlap in `seq`, chunks of one batch do;
`batch_seq` is the first `seq` of the batch."""

leases = sa.Table(
    "leases",
    TABLES,
    _name("workspace", key=True),
    _name("deployment", key=True),
    _count("epoch"),
    _flag("held"),
    _text("owner"),
    _text("run_id"),
    _text("verb"),
    _time("acquired_at"),
    _time("expires_at"),
)
"""Rows outlive their deployment: the epoch of a name only ever rises."""

cancel_requests = sa.Table(
    "cancel_requests",
    TABLES,
    _name("run_id", key=True),
    _text("requested_by"),
    _time("at"),
    _of_run(),
)

secrets = sa.Table(
    "secrets",
    TABLES,
    _name("workspace", key=True),
    _name("name", key=True),
    _time("updated_at"),
    _sealed("value_sealed"),
)

connections = sa.Table(
    "connections",
    TABLES,
    _name("workspace", key=True),
    _name("name", key=True),
    _time("updated_at"),
    _sealed("text_sealed"),
)
"""A workspace's templates, as they were written."""

audit = sa.Table(
    "audit",
    TABLES,
    _name("id", key=True),
    _name("workspace"),
    _name("deployment"),
    _time("at"),
    _text("who"),
    _text("what"),
    _text("detail"),
    sa.Index(None, "workspace", "at"),
)
"""Rows outlive what they tell of."""
