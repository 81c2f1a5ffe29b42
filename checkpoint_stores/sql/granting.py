"""Rights given in advance, on the SQL store: allowances and delegations, their listing and their end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import Grant
from checkpoint_stores.sql import allowing, listings
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.lines import GrantLine, grant_of, key_of


class Granting:
    """What people may say about tickets that are yet to open, and for one another."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def allow(
        self, barrier: str, decision: Decides, *, uses: int, until: datetime | timedelta, flow: str | None, run_id: str | None,
        tenant: str, path: str | None,
    ) -> Grant:  # fmt: skip
        from checkpoint_stores import granting  # few programs give rights in advance

        asked = granting.allowance_asked(barrier, decision, uses=uses, until=until, flow=flow, run_id=run_id, tenant=tenant, path=path)
        return await self._database.transact(allowing.give, asked)

    async def delegate(
        self, barrier: str, *, to: str, by: str, roles: Sequence[str], reason: str, source: str, until: datetime | timedelta | None,
        flow: str | None, run_id: str | None, tenant: str, path: str | None,
    ) -> Grant:  # fmt: skip
        from checkpoint_stores import granting

        asked = granting.delegation_asked(
            barrier,
            to=to,
            by=by,
            roles=roles,
            reason=reason,
            source=source,
            until=until,
            flow=flow,
            run_id=run_id,
            tenant=tenant,
            path=path,
        )
        return await self._database.transact(allowing.give, asked)

    async def grants(self, *, flow: str | None, run_id: str | None, tenant: str, live: bool, limit: int) -> list[Grant]:
        key = key_of(run_id) if run_id is not None else None
        now = self._database.scribe.time()
        asked = listings.grants_oldest_first(flow=flow, run_id=key, tenant=tenant, live=live, limit=limit, now=now)
        return [grant_of(GrantLine(*line)) for line in (await self._database.listed([asked]))[0]]

    async def revoke(self, grant_id: str, *, by: str, reason: str) -> Grant:
        return await self._database.transact(allowing.revoke, grant_id, by, reason)
