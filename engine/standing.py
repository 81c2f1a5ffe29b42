"""The statuses of a run as they come, from whatever process drives it.  Knows a store and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import aclosing

from checkpoint_stores.errors import RunEndedError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, RunStatus


async def statuses(store: CheckpointStore, run_id: str) -> AsyncIterator[RunStatus]:
    """The status the run has now, then each newer one, until it has ended.  Of several that come at once only the last is told.

    Raises RunNotFoundError, StoreUnavailableError.
    """
    told: RunStatus | None = None
    watch = store.watch((await store.run(run_id)).run_id)
    try:
        while True:
            status = (await store.run(run_id)).status
            if status != told:
                told = status
                yield status
            if status in ENDED:
                return
            await watch.changed()
    finally:
        watch.close()


async def reached(store: CheckpointStore, run_id: str, wanted: Collection[str]) -> RunStatus:
    """The first status among ``wanted`` that the run has or comes to have.  Raises RunEndedError where none can come any more."""
    status: RunStatus | None = None
    async with aclosing(statuses(store, run_id)) as coming:  # type: ignore[type-var]
        async for status in coming:
            if status in wanted:
                return status
    raise RunEndedError(run_id, str(status))
