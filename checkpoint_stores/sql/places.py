"""Where the values go into a statement: ``%1``, ``%2`` ... as we write it, in the words of each driver.

asyncpg takes numbers.  sqlite3 takes them as well, but some Pythons (3.12.0 to 3.12.3) warn that ``?1`` is a name, so it gets
plain ``?`` and the values laid out in the order of the places, once for each.  ``{now:N}`` is the database's clock unless value N
is given (on SQLite it always is), and ``{lock}`` keeps the line locked until the transaction ends where lines can be locked.
Knows no table and no connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import Any, Final, TypeAlias

Values: TypeAlias = tuple[Any, ...]

Question: TypeAlias = tuple[str, Values]
"""A text as we write it, and the values of its places."""

POSTGRES_CLOCK: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_PLACE: Final = re.compile(r"%(\d+)")
_NOW: Final = re.compile(r"\{now:(\d+)\}")


def places(number: int) -> str:
    """Places for so many values.

    >>> places(3)
    '%1, %2, %3'
    """
    return ", ".join(f"%{place}" for place in range(1, number + 1))


@cache
def for_postgres(template: str) -> str:
    """The statement for asyncpg.

    >>> for_postgres("SELECT owner FROM runs WHERE run_id = %1{lock}")
    'SELECT owner FROM runs WHERE run_id = $1 FOR UPDATE'
    """
    template = _NOW.sub(rf"coalesce(%\1::bigint, {POSTGRES_CLOCK})", template)
    return template.replace("{lock}", " FOR UPDATE").replace("%", "$")


def for_sqlite(template: str, values: Values) -> tuple[str, Values]:
    """The statement for sqlite3, and the values as it wants them.

    >>> for_sqlite("UPDATE runs SET owner = %2 WHERE run_id = %1 AND owner != %2", ("run", "me"))
    ('UPDATE runs SET owner = ? WHERE run_id = ? AND owner != ?', ('me', 'run', 'me'))
    """
    text, laid_out = _for_sqlite(template)
    return text, laid_out(values)


@cache
def _for_sqlite(template: str) -> tuple[str, Callable[[Values], Values]]:
    template = _NOW.sub(r"%\1", template).replace("{lock}", "")
    order = [int(place) - 1 for place in _PLACE.findall(template)]
    # As they are where they stand in order; so does one alone, of which itemgetter would make no tuple.
    return _PLACE.sub("?", template), tuple if order == list(range(len(order))) else itemgetter(*order)
