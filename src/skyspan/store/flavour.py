"""What differs between databases, as one protocol; everything else in the store is the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from skyspan.model.error import StoreError


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a database error means. `lost`: the connection is gone. `again`: the same transaction may succeed now."""

    error: StoreError
    lost: bool = False
    again: bool = False


class Care(Protocol):
    """What only upkeep needs of a database; outside any transaction."""

    def settle(self, connection: sa.Connection) -> None:
        """Return once every writing transaction that began before the call has ended; raises TimeoutError."""
        ...

    def compact(self, connection: sa.Connection) -> None:
        """Give free pages back and leave nothing readable in them."""
        ...


class Flavour(Care, Protocol):
    """One kind of database. Used by the store's own thread only."""

    @property
    def where(self) -> str:
        """The store in words fit for a message: a path, or a URL without password."""
        ...

    def connect(self) -> sa.Connection:
        """A new connection in autocommit mode: transactions begin and end by explicit statements."""
        ...

    def begin(self, connection: sa.Connection, *, writes: bool, exclusive: bool = False) -> None:
        """Begin a transaction; an `exclusive` one waits while another process changes the schema."""
        ...

    def mark(self, connection: sa.Connection) -> str | None:
        """What identifies the open transaction, or None where the answer to a commit cannot get lost."""
        ...

    def committed(self, connection: sa.Connection, mark: str) -> bool | None:
        """Whether the transaction with that mark, of a connection lost meanwhile, was committed; None: still open."""
        ...

    def trouble(self, problem: BaseException) -> Trouble | None:
        """What `problem` means, or None when it is not about the database."""
        ...


def driver_error(problem: BaseException) -> Any:
    """The driver's own exception inside SQLAlchemy's, or `problem` itself."""
    return problem.orig if isinstance(problem, sa.exc.DBAPIError) and problem.orig is not None else problem
