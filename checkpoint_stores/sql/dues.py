"""Which runs nobody drives though they could go on, and when to look again.

Two index ranges: runs without an owner whose time has come, and runs of owners
that are gone.  Reads only: whoever wants a run takes it as anybody does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, TypeVar

from checkpoint_stores.errors import RunNotFoundError
from checkpoint_stores.records import RunRecord
from checkpoint_stores.sql import statements, transactions
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.leases import is_over, this_host
from checkpoint_stores.sql.lines import WatchedLine, key_of, watched_run_of
from checkpoint_stores.watching import EVERY_RUN, LocalWatch

T = TypeVar("T")

_NAMED: Final = 8_192
"""So many runs to be left out a statement names (PostgreSQL takes 32,767 parameters); beyond that they are read and dropped."""

_MANY_GONE: Final = 100
"""So many processes may have died before those that own nothing any more are forgotten."""


class Dues:
    """What a worker asks of the store before it takes a run."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._scribe = database.scribe

    async def due(self, *, flows: Collection[str] | None, limit: int, aside: Collection[str]) -> list[RunRecord]:
        if flows is not None and not flows:
            return []
        keys = _keys_of(aside)
        named, dropped = _filled(keys[:_NAMED]), frozenset(keys[_NAMED:])
        wanted = _filled([] if flows is None else list(flows))
        most = limit + len(dropped)
        found: list[Any] = []
        if gone := _filled(await self._gone_owners()):
            text = statements.runs_of_owners(len(gone), len(wanted), len(named))
            found += await self._fetch(text, most, self._scribe.time(), *gone, *wanted, *named)
        if (more := most - len(found)) > 0:
            found += await self._fetch(statements.runs_due(len(wanted), len(named)), more, self._scribe.time(), *wanted, *named)
        lines = [WatchedLine(*line) for line in found]
        return [watched_run_of(line) for line in lines if bytes(line.run_id) not in dropped][:limit]

    async def next_due(self) -> int:
        found = await self._fetch(statements.NEXT_DUE, self._scribe.worker_id, self._scribe.lease, self._scribe.time())
        return int(found[0][0])

    def watch(self) -> LocalWatch:
        self._database.check_open()
        return self._database.outside.watches.watch(EVERY_RUN)

    async def _gone_owners(self) -> list[str]:
        """Processes that hold runs no longer, though these still name them."""
        found = await self._fetch(statements.PERHAPS_GONE, self._scribe.worker_id, this_host(), self._scribe.time())
        gone = [
            (worker_id, clock)
            for worker_id, host, pid, pid_started, expires_at, clock in found
            if is_over(expires_at, clock, host, pid, pid_started)
        ]
        if len(gone) > _MANY_GONE:
            await self._database.transact(transactions.forget, gone[0][1] - self._scribe.lease)
        return [worker_id for worker_id, _ in gone]

    async def _fetch(self, text: str, *values: Any) -> list[Any]:
        return (await self._database.fetch([(text, values)]))[0]


def _filled(values: list[T]) -> list[T]:
    """The last one again and again until they are one, two, four ...: few different texts, so that each stays prepared.

    >>> _filled(["a", "b", "c"])
    ['a', 'b', 'c', 'c']
    """
    return values + values[-1:] * ((1 << (len(values) - 1).bit_length()) - len(values))


def _keys_of(run_ids: Collection[str]) -> list[bytes]:
    keys = []
    for run_id in run_ids:
        try:
            keys.append(key_of(run_id))
        except RunNotFoundError:
            continue  # no run of this store
    return keys
