"""Our three stores keep every promise of `StoreContract`, `GrantContract` and `ResumptionContract`."""

from __future__ import annotations

from functools import partial

import pytest

from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.sql import postgres_database
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
    def store_factory(self, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> StoreFactory:
        # Whatever can be is asked at the desk; how runs are read without one is compared in tests/test_reading_together.py.
        monkeypatch.setattr(postgres_database, "_BEFORE_THE_DESK", 0)
        return partial(SQLCheckpointStore, postgres_url)
