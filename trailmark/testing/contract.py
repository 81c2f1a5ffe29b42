"""Every promise of `CheckpointStore`, as tests: ours pass them, and so does any store you write.

Subclass `StoreContract` in a test file and give it a fixture ``store_factory``::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return lambda **options: MyStore(tmp_path / "runs", **options)

What is promised of rights given in advance is `trailmark.testing.grant_contract.GrantContract`, and of the optional `take_up`
`trailmark.testing.resumption_contract.ResumptionContract`: further bases of the same class.

Each call returns one more store, not yet opened, over the same database: two
stores are two processes.  ``options`` are ``now`` (a clock: a callable that
returns microseconds), ``lease`` (a timedelta) and ``chain_key`` (bytes).

This file knows how stores are made and states no promise: those stand in `trailmark.testing.promises`, one file for each thing that a store does, and
what they are told with in `trailmark.testing.owned_runs`.  The names of the latter may be imported from here, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from checkpoint_stores.protocol import CheckpointStore
from trailmark.testing.owned_runs import (
    DEFINITION,
    LEASE,
    SECOND,
    OwnedRun,
    SetClock,
    StoreFactory,
    Verdict,
    all_rows,
    barrier,
    new_run,
    reject,
    replace_epoch,
)
from trailmark.testing.promises.amending import AmendmentContract
from trailmark.testing.promises.commits import CommitContract
from trailmark.testing.promises.creating import CreationContract
from trailmark.testing.promises.decisions import DecisionContract
from trailmark.testing.promises.decisions_together import DecisionsTogetherContract
from trailmark.testing.promises.due import DueContract
from trailmark.testing.promises.early_decisions import EarlyDecisionContract
from trailmark.testing.promises.effects import EffectContract, effect
from trailmark.testing.promises.expiry import ExpiryContract
from trailmark.testing.promises.finding import FindingContract
from trailmark.testing.promises.inbox import InboxContract
from trailmark.testing.promises.judging import JudgingContract
from trailmark.testing.promises.leases import LeaseContract
from trailmark.testing.promises.loading import LoadingContract
from trailmark.testing.promises.pruning import PruningContract
from trailmark.testing.promises.tickets import TicketContract
from trailmark.testing.promises.watches import WatchContract

__all__ = [
    "DEFINITION",
    "LEASE",
    "SECOND",
    "OwnedRun",
    "SetClock",
    "StoreContract",
    "StoreFactory",
    "Verdict",
    "all_rows",
    "barrier",
    "effect",
    "new_run",
    "reject",
    "replace_epoch",
]


class StoreContract(
    CreationContract,
    FindingContract,
    DueContract,
    LeaseContract,
    ExpiryContract,
    CommitContract,
    LoadingContract,
    PruningContract,
    AmendmentContract,
    TicketContract,
    InboxContract,
    DecisionContract,
    JudgingContract,
    EarlyDecisionContract,
    DecisionsTogetherContract,
    WatchContract,
    EffectContract,
):
    """The promises.  Provide the fixture ``store_factory``; see the module."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        raise NotImplementedError("a subclass of StoreContract provides the fixture store_factory")

    @pytest_asyncio.fixture
    async def store(self, store_factory: StoreFactory) -> AsyncIterator[CheckpointStore]:
        async with store_factory() as store:
            yield store

    @pytest_asyncio.fixture
    async def other(self, store: CheckpointStore, store_factory: StoreFactory) -> AsyncIterator[CheckpointStore]:
        """Another process on the same database."""
        async with store_factory() as other:
            yield other
