"""Which runs nobody drives though they could go on, and when to look again.

Two index ranges: runs without an owner whose time has come, and runs of owners
that are gone.  Reads only: whoever wants a run takes it as anybody does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from checkpoint_stores.errors import RunNotFoundError
from checkpoint_stores.records import RunRecord
from checkpoint_stores.sql import statements, transactions
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.leases import is_over, this_host
from checkpoint_stores.sql.lines import key_of, watched_run_of
from checkpoint_stores.watching import EVERY_RUN, LocalWatch

_NAMED: Final = 10_000
"""So many runs to be left out a statement names (PostgreSQL takes 32,767 parameters); beyond that they are read and dropped."""

_MANY_GONE: Final = 100
"""So many processes may have died before those that own nothing any more are forgotten."""


class Dues:
    """What a worker asks of the store before it takes a run."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._scribe = database.scribe

    async def due(self, *, flows: Collection[str] | None, limit: int, aside: Collection[str]) -> list[RunRecord]:
        keys = _keys_of(aside)
        wanted, dropped = statements.Wanted(flows, keys[:_NAMED], self._scribe.time()), frozenset(keys[_NAMED:])
        gone = await self._gone_owners()
        lines = list(await self._database.read(statements.runs_of_owners(gone, wanted, limit + len(dropped)))) if gone else []
        if len(lines) < limit + len(dropped):
            lines += await self._database.read(statements.runs_due(wanted, limit + len(dropped) - len(lines)))
        return [watched_run_of(line) for line in lines if bytes(line.run_id) not in dropped][:limit]

    async def next_due(self) -> int:
        asked = statements.next_due(self._scribe.worker_id, self._scribe.lease, self._scribe.time())
        return int((await self._database.read(asked))[0][0])

    def watch(self) -> LocalWatch:
        self._database.check_open()
        return self._database.outside.watches.watch(EVERY_RUN)

    async def _gone_owners(self) -> list[str]:
        """Processes that hold runs no longer, though these still name them."""
        asked = statements.perhaps_gone(self._scribe.worker_id, this_host(), self._scribe.time())
        gone = [line for line in await self._database.read(asked) if _is_gone(line)]
        names = [line.worker_id for line in gone]
        if len(gone) > _MANY_GONE:
            await self._database.transact(transactions.forget, names, gone[0].clock - self._scribe.lease)
        return names


def _is_gone(line: Any) -> bool:
    return is_over(line.lease_expires_at, line.clock, line.host, line.pid, line.pid_started)


def _keys_of(run_ids: Collection[str]) -> list[bytes]:
    keys = []
    for run_id in run_ids:
        try:
            keys.append(key_of(run_id))
        except RunNotFoundError:
            continue  # no run of this store
    return keys
