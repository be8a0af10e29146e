"""Templates of connections.

Revision 0003 follows 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "connections",
        _name("workspace"),
        _name("name"),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("text_sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "name", name="pk_connections"),
    )


def _name(column: str) -> sa.Column[str]:
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(column, kind, nullable=False)
