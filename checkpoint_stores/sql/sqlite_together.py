"""What many runs want of a SQLite file at once: a few statements for all of them.

The driver gives up Python's lock at each statement, and at each line that comes back, and gets it again behind a loop that is busy with
the very runs whose work waits: so what is alike goes down as one statement, and comes back as one line.  Either all of it is written as
each alone would be, or it is said that it was not; who is asked one by one then finds out why.  Begins and ends no transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final

from checkpoint_stores.sql import statements
from checkpoint_stores.sql.matters import Ending, Starting
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


def write(execute: Execute, works: Sequence[Transition], now: int) -> list[int | None]:
    """What runs come to with their rows, or are taken with: the inbox_rev of each, in order; nothing where not all of them are as they should be.

    Then what is written is to be undone.  Tickets that open are no part of it: they may be decided already.
    """
    room = statements.room_for(len(works))
    taken = [(work.key, work.commit.epoch, *work.taking) for work in works if work.taking is not None]
    _for_all(execute, statements.sqlite_take_many, taken, now)
    changes = [(work.key, work.commit.epoch, *work.change) for work in works if work.change and (work.taking is None or work.commit.change)]
    _for_all(execute, statements.sqlite_change_many, changes, now)
    execute(statements.sqlite_append_many(room), [*_filled([work.rows[0] for work in works], room), now])
    revs, are_in = _told(execute, [work.key for work in works], room)
    if not are_in or any(row[_SEQ] != work.rows[0][_SEQ] + place for work in works for place, row in enumerate(work.rows)):
        return []
    _for_all(execute, statements.sqlite_insert_many, [row for work in works for row in work.rows[1:]], now)
    _for_all(execute, statements.sqlite_close_many, [(work.key, *closed) for work in works for closed in work.closed])
    _for_all(execute, statements.sqlite_vote_many, [_vote(vote, now) for work in works for vote in work.voted])
    _for_all(execute, statements.sqlite_consume_many, [(work.key, *consumed) for work in works for consumed in work.consumed])
    return revs


def _vote(vote: Mapping[str, Any], now: int) -> list[Any]:
    return [vote[name] or now if name == "decided_at" else vote[name] for name in statements.DECISIONS]


def _for_all(execute: Execute, statement: Callable[[int], str], lines: Sequence[Sequence[Any]], *now: int) -> None:
    """Carry a statement out for lines, however many there are."""
    for first in range(0, len(lines), statements.MOST_TOGETHER):
        part = lines[first : first + statements.MOST_TOGETHER]
        room = statements.room_for(len(part))
        execute(statement(room), [*_filled(part, room), *now])


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


def start_effects(execute: Execute, works: Sequence[Starting], now: int) -> None:
    """Side effects begun for the first time; how many lines are written tells of how many that holds."""
    _for_all(execute, statements.sqlite_start_effects, [work.line for work in works], now)


def end_effects(execute: Execute, works: Sequence[Ending], now: int) -> None:
    """What became of side effects; how many lines are written tells how many waited for it."""
    _for_all(execute, statements.sqlite_end_effects, [(*work.line, work.epoch, work.held) for work in works], now)


def follow(execute: Execute, rows: Sequence[tuple[Any, ...]], now: int) -> None:
    """Rows of one run, behind one that was appended in the same transaction."""
    _for_all(execute, statements.sqlite_insert_many, rows, now)


def _filled(lines: Collection[Sequence[Any]], room: int) -> list[Any]:
    """What a statement with ``room`` for lines is given: those there are, nothing for the others."""
    width = len(next(iter(lines)))
    return [*chain.from_iterable(lines), *repeat(None, (room - len(lines)) * width)]


def _told(execute: Execute, keys: Collection[bytes], room: int) -> tuple[list[int | None], bool]:
    """The inbox_rev of each run, None where there is no such run; and whether the rows of all of them are in."""
    written, told = execute(statements.sqlite_told(room), [*keys, *repeat(None, room - len(keys))])[0]
    return [int(rev) if rev else None for rev in told.split(",")[: len(keys)]], written == len(keys)
