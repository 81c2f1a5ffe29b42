"""How a transaction speaks to PostgreSQL: in the synchronous world of `AsyncConnection.run_sync`, to the asyncpg connection under it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from checkpoint_stores.sql import statements
from checkpoint_stores.sql.places import for_postgres


class PostgresWire:
    """A `Wire`; see there."""

    def __init__(self, connection: sa.Connection) -> None:
        self._adapted: Any = connection.connection.dbapi_connection

    def fetch(self, template: str, *values: Any) -> Sequence[Any]:
        lines: Sequence[Any] = self._adapted.run_async(lambda driver: driver.fetch(for_postgres(template), *values))
        return lines

    def tell(self, key: bytes) -> None:
        self.fetch(statements.NOTIFY, key.hex())
