"""Our three stores keep every promise of `StoreContract`, `GrantContract` and `ResumptionContract`."""

from __future__ import annotations

from functools import partial

import pytest

from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.sql.store import SQLCheckpointStore
from trailmark.testing.contract import StoreContract, StoreFactory
from trailmark.testing.grant_contract import GrantContract
from trailmark.testing.resumption_contract import ResumptionContract


class TestMemoryStore(StoreContract, GrantContract, ResumptionContract):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return partial(MemoryCheckpointStore, database=MemoryDatabase())


class TestSQLiteStore(StoreContract, GrantContract, ResumptionContract):
    @pytest.fixture
    def store_factory(self, sqlite_url: str) -> StoreFactory:
        return partial(SQLCheckpointStore, sqlite_url)


class TestPostgresStore(StoreContract, GrantContract, ResumptionContract):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(SQLCheckpointStore, postgres_url)
