"""The first tables.

Revision 0001 follows none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_deployments()
    _create_stages()
    _create_runs()
    _create_logs()
    _create_the_rest()


def _name(column: str) -> sa.Column[str]:
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(column, kind, nullable=False)


def _text(column: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.Text, nullable=nullable)


def _time(column: str) -> sa.Column[float]:
    return sa.Column(column, sa.Double, nullable=False)


def _count(column: str) -> sa.Column[int]:
    return sa.Column(column, sa.BigInteger, autoincrement=False, nullable=False)


def _flag(column: str) -> sa.Column[bool]:
    return sa.Column(column, sa.Boolean, nullable=False)


def _sealed(column: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(column, sa.LargeBinary, nullable=nullable)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _of_deployment(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["workspace", "deployment"],
        ["deployments.workspace", "deployments.name"],
        name=f"fk_{table}_deployments",
        ondelete="CASCADE",
    )


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=f"fk_{table}_runs", ondelete="CASCADE")


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        _name("workspace"),
        _name("name"),
        _text("status"),
        _text("health"),
        _text("folder"),
        _text("last_run"),
        _time("created_at"),
        _time("updated_at"),
        _key("deployments", "workspace", "name"),
    )
    op.create_table(
        "compositions",
        _name("workspace"),
        _name("deployment"),
        _sealed("composition_sealed"),
        _sealed("inputs_sealed"),
        _key("compositions", "workspace", "deployment"),
        _of_deployment("compositions"),
    )


def _create_stages() -> None:
    op.create_table(
        "stages",
        _name("workspace"),
        _name("deployment"),
        _name("name"),
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
        _key("stages", "workspace", "deployment", "name"),
        _of_deployment("stages"),
    )
    op.create_table(
        "outputs",
        _name("workspace"),
        _name("deployment"),
        _name("stage"),
        _name("name"),
        _count("position"),
        _flag("sensitive"),
        _text("value", nullable=True),
        _sealed("value_sealed", nullable=True),
        _key("outputs", "workspace", "deployment", "stage", "name"),
        sa.ForeignKeyConstraint(
            ["workspace", "deployment", "stage"],
            ["stages.workspace", "stages.deployment", "stages.name"],
            name="fk_outputs_stages",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "kept",
        _name("workspace"),
        _name("deployment"),
        _name("stage"),
        _name("name"),
        _time("updated_at"),
        _sealed("data_sealed"),
        _key("kept", "workspace", "deployment", "stage", "name"),
        _of_deployment("kept"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        _name("id"),
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
        _key("runs", "id"),
        _of_deployment("runs"),
    )
    op.create_index("ix_runs_workspace_deployment_started_at", "runs", ["workspace", "deployment", "started_at"])
    op.create_table(
        "stage_runs",
        _name("run_id"),
        _name("name"),
        _text("uses"),
        _text("status"),
        _text("change"),
        _count("attempt"),
        _time("started_at"),
        _time("finished_at"),
        _text("reason"),
        _text("outputs"),
        _text("error", nullable=True),
        _count("position"),
        _key("stage_runs", "run_id", "name"),
        _of_run("stage_runs"),
        sqlite_with_rowid=False,
    )


def _create_logs() -> None:
    op.create_table(
        "events",
        _name("run_id"),
        _count("seq"),
        _time("at"),
        _text("kind"),
        _text("payload"),
        _key("events", "run_id", "seq"),
        _of_run("events"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log_chunks",
        _name("run_id"),
        _count("last_seq"),
        _count("batch_seq"),
        _name("stage"),
        _text("lines"),
        _key("log_chunks", "run_id", "last_seq"),
        _of_run("log_chunks"),
    )
    op.create_index("ix_log_chunks_run_id_stage_last_seq", "log_chunks", ["run_id", "stage", "last_seq"])


def _create_the_rest() -> None:
    op.create_table(
        "leases",
        _name("workspace"),
        _name("deployment"),
        _count("epoch"),
        _flag("held"),
        _text("owner"),
        _text("run_id"),
        _text("verb"),
        _time("acquired_at"),
        _time("expires_at"),
        _key("leases", "workspace", "deployment"),
    )
    op.create_table(
        "cancel_requests",
        _name("run_id"),
        _text("requested_by"),
        _time("at"),
        _key("cancel_requests", "run_id"),
        _of_run("cancel_requests"),
    )
    op.create_table(
        "secrets",
        _name("workspace"),
        _name("name"),
        _time("updated_at"),
        _sealed("value_sealed"),
        _key("secrets", "workspace", "name"),
    )
