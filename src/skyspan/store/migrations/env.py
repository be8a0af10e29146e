"""Runs revisions on the connection, and in the transaction, that the store hands over."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Apply the requested revisions."""
    connection = context.config.attributes["connection"]
    # The store began the transaction and will commit it: one process, one step from old to new or nothing.
    context.configure(connection=connection, transactional_ddl=False, render_as_batch=True)
    context.run_migrations()


run()
