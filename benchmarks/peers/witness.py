"""Looks into a database over a connection of its own, and so sees what is committed and nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from peers.peer import Place


class Witness:
    """Counts the committed rows of one table while it is open; used as the body of a step is entered, and when all is over."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connection: Any = None
        self._query = ""
        self.seen: list[int] = []

    def open(self, table: str) -> None:
        self._query = f"SELECT count(*) FROM {table}"
        self._connection = sqlite3.connect(self._place.url) if self._place.kind == "sqlite" else _postgres(self._place.url)

    def look(self) -> None:
        if self._connection:
            with contextlib.closing(self._connection.execute(self._query)) as found:
                self.seen.append(int(found.fetchone()[0]))

    def close(self) -> None:
        self._connection.close()
        self._connection = None

    @property
    def saw_each_step_first(self) -> bool:
        """Was each step's row there, for everybody to see, when the next step began?"""
        return all(later > earlier for earlier, later in zip(self.seen, self.seen[1:], strict=False))


def rows(place: Place, table: str) -> int:
    witness = Witness(place)
    witness.open(table)
    witness.look()
    witness.close()
    return witness.seen[0]


def bytes_of(file: str) -> int:
    """A SQLite database with what lies beside it."""
    return sum(part.stat().st_size for part in Path(file).parent.glob(Path(file).name + "*"))


def _postgres(url: str) -> Any:
    import psycopg  # the peers bring it along

    return psycopg.connect(url, autocommit=True)
