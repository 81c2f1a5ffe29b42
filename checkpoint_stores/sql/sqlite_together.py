"""What many runs want of a SQLite file at once: a statement or two for all of them.

The driver gives up Python's lock at each statement, and at each line that comes back, and gets it again behind a loop that is busy with
the very runs whose work waits: so what is alike goes down as one statement, and comes back as one line.  Either all of it is written as
each alone would be, or it is said that it was not; who is asked one by one then finds out why.  Begins and ends no transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final

from checkpoint_stores.sql import statements
from checkpoint_stores.sql.places import for_sqlite
from checkpoint_stores.sql.transitions import Creation, Transition
from checkpoint_stores.sql.wires import Execute

_SEQ: Final = statements.ROW_COLUMNS.index("seq")
_DIGEST: Final = statements.ROW_COLUMNS.index("digest")


def append(execute: Execute, rows: Mapping[bytes, tuple[Any, ...]], now: int) -> list[int | None]:
    """One row each of as many runs: the inbox_rev of each run, in order; None where its row is refused, and only that one then is not in.

    Raises the driver's error, and nothing is written, where one of them is wrong in itself.
    """
    room = statements.room_for(len(rows))
    execute(statements.sqlite_append_many(room), [*_filled(rows.values(), room), now])
    revs, are_in = _told(execute, rows, room)
    if not are_in:
        for place, (key, row) in enumerate(rows.items()):
            if not execute(*for_sqlite(statements.SQLITE_IS_IN, (key, row[_SEQ], row[_DIGEST]))):
                revs[place] = None
    return revs


def change(execute: Execute, works: Sequence[Transition], now: int) -> list[int | None]:
    """What each of as many runs comes to with its row: the inbox_rev of each, in order; nothing where not all of them are as they should be.

    Then what is written is to be undone.
    """
    room = statements.room_for(len(works))
    changes = [(work.key, work.commit.epoch, *(work.change or ())) for work in works]
    execute(statements.sqlite_change_many(room), [*_filled(changes, room), now])
    execute(statements.sqlite_append_many(room), [*_filled([work.rows[0] for work in works], room), now])
    revs, are_in = _told(execute, [work.key for work in works], room)
    return revs if are_in else []


def create(execute: Execute, news: Sequence[Creation], now: int) -> bool:
    """New runs with all that belongs to them; whether their names were free.  Else what is written is to be undone."""
    room = statements.room_for(len(news))
    execute(statements.sqlite_create_many(room), [*_filled([new.line[: statements.NEW_RUN_WIDTH] for new in news], room), now, now])
    execute(statements.sqlite_first_rows(room), [*_filled([new.row for new in news], room), now])
    _, are_in = _told(execute, [new.key for new in news], room)
    if not are_in:
        return False
    for graph in {new.graph for new in news if new.graph is not None}:
        execute(*for_sqlite(statements.PUT_GRAPH, graph))
    for new in news:
        for barrier in new.opened:
            execute(statements.SQLITE_OPEN_BARRIER, barrier | {"opened_at": barrier["opened_at"] or now})
    return True


def follow(execute: Execute, rows: Sequence[tuple[Any, ...]], now: int) -> None:
    """Rows of one run, behind one that was appended in the same transaction."""
    for first in range(0, len(rows), statements.MOST_TOGETHER):
        part = rows[first : first + statements.MOST_TOGETHER]
        room = statements.room_for(len(part))
        execute(statements.sqlite_insert_many(room), [*_filled(part, room), now])


def _filled(lines: Collection[Sequence[Any]], room: int) -> list[Any]:
    """What a statement with ``room`` for lines is given: those there are, nothing for the others."""
    width = len(next(iter(lines)))
    return [*chain.from_iterable(lines), *repeat(None, (room - len(lines)) * width)]


def _told(execute: Execute, keys: Collection[bytes], room: int) -> tuple[list[int | None], bool]:
    """The inbox_rev of each run, None where there is no such run; and whether the rows of all of them are in."""
    written, told = execute(statements.sqlite_told(room), [*keys, *repeat(None, room - len(keys))])[0]
    return [int(rev) if rev else None for rev in told.split(",")[: len(keys)]], written == len(keys)
