"""Who saw what.

Revision 0002 follows 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        _name("id"),
        _name("workspace"),
        _name("deployment"),
        sa.Column("at", sa.Double, nullable=False),
        _text("who"),
        _text("what"),
        _text("detail"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_workspace_at", "audit", ["workspace", "at"])


def _name(column: str) -> sa.Column[str]:
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(column, kind, nullable=False)


def _text(column: str) -> sa.Column[str]:
    return sa.Column(column, sa.Text, nullable=False)
