"""The stores, as users import them: ``from trailmark.checkpoint_stores import SQLCheckpointStore``.

Names are fetched when they are first used, so that nobody pays for a store he
does not use.  SQLAlchemy is imported later still: for PostgreSQL, and on SQLite
for the first listing, an older file, or a step with a transaction of its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from checkpoint_stores.carrying import RunImage, image_of, lines_of
    from checkpoint_stores.chain import Chain
    from checkpoint_stores.errors import (
        AmbiguousEffectError,
        AmbiguousTicketError,
        BarrierClosedError,
        BarrierError,
        CheckpointCorruptError,
        CheckpointNotFoundError,
        CodecError,
        DecisionConflictError,
        EffectError,
        EffectNotInDoubtError,
        GrantError,
        IllegalTransitionError,
        InvalidDecisionError,
        InvalidGrantError,
        LeaseHeldError,
        LeaseLostError,
        NotAnApproverError,
        NotDelegatedError,
        RunEndedError,
        RunExistsError,
        RunFileError,
        RunMovedError,
        RunNotEndedError,
        RunNotFoundError,
        SchemaVersionError,
        StalePayloadError,
        StoreError,
        StoreUnavailableError,
        TenantError,
        TransactionError,
        TransactionOverError,
        TransactionTimeoutError,
        TransactionUnavailableError,
        UnknownBarrierError,
        UnknownEffectError,
        UnknownFlowError,
        UnknownGrantError,
        UnserialisableError,
    )
    from checkpoint_stores.fold import RunState
    from checkpoint_stores.folding import folded
    from checkpoint_stores.memory import MemoryCheckpointStore
    from checkpoint_stores.memory_database import MemoryDatabase
    from checkpoint_stores.protocol import DEFAULT_LEASE, CheckpointStore, Folds, Standing, TakesUp, Watch
    from checkpoint_stores.records import (
        Amendment,
        BarrierRecord,
        CancelRequest,
        Changeover,
        Commit,
        DecisionRecord,
        EffectRecord,
        Grant,
        Inbox,
        Lease,
        NewRun,
        Problem,
        Receipt,
        Resumption,
        Row,
        RunChange,
        RunRecord,
        RunStatus,
        Snapshot,
        TicketMove,
    )
    from checkpoint_stores.sql.store import SQLCheckpointStore
    from checkpoint_stores.tenancy import TenantStore

__all__ = [
    "DEFAULT_LEASE",
    "AmbiguousEffectError",
    "AmbiguousTicketError",
    "Amendment",
    "BarrierClosedError",
    "BarrierError",
    "BarrierRecord",
    "CancelRequest",
    "Chain",
    "Changeover",
    "CheckpointCorruptError",
    "CheckpointNotFoundError",
    "CheckpointStore",
    "CodecError",
    "Commit",
    "DecisionConflictError",
    "DecisionRecord",
    "EffectError",
    "EffectNotInDoubtError",
    "EffectRecord",
    "Folds",
    "Grant",
    "GrantError",
    "IllegalTransitionError",
    "Inbox",
    "InvalidDecisionError",
    "InvalidGrantError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "MemoryCheckpointStore",
    "MemoryDatabase",
    "NewRun",
    "NotAnApproverError",
    "NotDelegatedError",
    "Problem",
    "Receipt",
    "Resumption",
    "Row",
    "RunChange",
    "RunEndedError",
    "RunExistsError",
    "RunFileError",
    "RunImage",
    "RunMovedError",
    "RunNotEndedError",
    "RunNotFoundError",
    "RunRecord",
    "RunState",
    "RunStatus",
    "SQLCheckpointStore",
    "SchemaVersionError",
    "Snapshot",
    "StalePayloadError",
    "Standing",
    "StoreError",
    "StoreUnavailableError",
    "TakesUp",
    "TenantError",
    "TenantStore",
    "TicketMove",
    "TransactionError",
    "TransactionOverError",
    "TransactionTimeoutError",
    "TransactionUnavailableError",
    "UnknownBarrierError",
    "UnknownEffectError",
    "UnknownFlowError",
    "UnknownGrantError",
    "UnserialisableError",
    "Watch",
    "folded",
    "image_of",
    "lines_of",
    "open_store",
]

_HOMES: Final = {
    "Chain": "checkpoint_stores.chain",
    "CheckpointStore": "checkpoint_stores.protocol",
    "DEFAULT_LEASE": "checkpoint_stores.protocol",
    "Folds": "checkpoint_stores.protocol",
    "MemoryCheckpointStore": "checkpoint_stores.memory",
    "MemoryDatabase": "checkpoint_stores.memory_database",
    "SQLCheckpointStore": "checkpoint_stores.sql.store",
    "Standing": "checkpoint_stores.protocol",
    "TakesUp": "checkpoint_stores.protocol",
    "TenantStore": "checkpoint_stores.tenancy",
    "RunImage": "checkpoint_stores.carrying",
    "RunState": "checkpoint_stores.fold",
    "Watch": "checkpoint_stores.protocol",
    "folded": "checkpoint_stores.folding",
    "image_of": "checkpoint_stores.carrying",
    "lines_of": "checkpoint_stores.carrying",
}


def open_store(url: str, **options: Any) -> CheckpointStore:
    """Return the store a URL names; use it with ``async with``.

    Args:
        url: ``memory://``, ``sqlite+aiosqlite:///runs.db`` or ``postgresql+asyncpg://user@host/database``.
        options: what the store's class takes (``lease``, ``now``, ``chain_key``, ``synchronous``).

    Raises:
        StoreUnavailableError: the URL names no store.

    >>> open_store("memory://").url
    'memory://'
    """
    if url in ("memory", "memory:", "memory://"):
        from checkpoint_stores.memory import MemoryCheckpointStore

        return MemoryCheckpointStore(**options)
    from checkpoint_stores.sql.store import SQLCheckpointStore

    return SQLCheckpointStore(url, **options)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name) or ("checkpoint_stores.errors" if name.endswith("Error") else "checkpoint_stores.records")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
