"""What a transaction speaks through: a statement goes down, its lines come back.

Statements are templates (see `places`), carried out by the bare driver: that takes a tenth of what SQLAlchemy's own execution does.
A wire neither begins nor ends a transaction, and knows no statement.  PostgreSQL's is `postgres_wire`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from checkpoint_stores.sql.places import for_sqlite

Execute: TypeAlias = Callable[[str, Any], Sequence[Any]]
"""Carries a statement of SQLite's own out and returns its lines."""


class Wire(Protocol):
    """To the database, inside a transaction that somebody else begins and ends."""

    def fetch(self, template: str, *values: Any) -> Sequence[Any]:
        """Carry a statement out; its lines as bare tuples."""
        ...

    def tell(self, key: bytes) -> None:
        """Wake whoever watches the run, once the transaction is in."""
        ...


class SQLiteWire:
    """Over whichever connection ``execute`` carries statements out on: the writer's, or the one of a step's own transaction."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def fetch(self, template: str, *values: Any) -> Sequence[Any]:
        return self._execute(*for_sqlite(template, values))

    def tell(self, key: bytes) -> None:
        """SQLite tells nobody: its watchers look for themselves."""
