"""Makes sure that a database has the tables of this Skyspan: makes them, migrates them, or refuses."""

from __future__ import annotations

import sqlalchemy as sa

from skyspan.model.error import StoreCorruptError, StoreUnavailableError
from skyspan.store.flavour import Flavour
from skyspan.store.tables import HEAD, REVISIONS, TABLES, versions

_CURRENT = sa.select(versions.c.version_num)


def ensure_schema(connection: sa.Connection, flavour: Flavour) -> None:
    """Leave the database at the newest revision.

    The usual case costs one query. Raises StoreUnavailableError for a store of a newer Skyspan, and
    StoreCorruptError for tables that are not ours.
    """
    if _quick_look(connection) == HEAD:
        return
    flavour.begin(connection, writes=True, exclusive=True)
    try:
        _bring_up(connection, flavour)
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def _quick_look(connection: sa.Connection) -> str | None:
    try:
        return connection.scalar(_CURRENT)
    except sa.exc.DBAPIError:
        # Mostly "no such table". Whatever else it is shows up again in the careful look that follows.
        return None


def _bring_up(connection: sa.Connection, flavour: Flavour) -> None:
    """Look again, now that nobody else changes anything, and do what is needed."""
    tables = set(sa.inspect(connection).get_table_names())
    if versions.name not in tables:
        foreign = sorted(tables & set(TABLES.tables))
        if foreign:
            raise StoreCorruptError(
                f"{flavour.where} is a database, but not a store of Skyspan",
                detail=f"It has tables named {', '.join(foreign)} and no revision.",
                hint="Choose another place for the store.",
            )
        TABLES.create_all(connection, checkfirst=False)
        connection.execute(sa.insert(versions), {"version_num": HEAD})
        return
    found = connection.scalar(_CURRENT)
    if found == HEAD:
        return
    if found is None:
        raise StoreCorruptError(f"the store {flavour.where} has lost its revision", hint="Restore it from a backup.")
    if found not in REVISIONS:
        raise StoreUnavailableError(
            f"the store {flavour.where} was made by a newer Skyspan",
            detail=f"Its revision is {found}; this Skyspan knows those up to {HEAD}.",
            hint="Upgrade Skyspan, or choose another store with --home or SKYSPAN_STORE.",
        )
    migrate(connection, HEAD)


def migrate(connection: sa.Connection, revision: str) -> None:
    """Bring the tables to `revision`, step by step, within the open transaction."""
    # Imported here: Alembic costs as much time as everything else in the start of a command.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "skyspan.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
