"""What can be set, as one object: what a program reads from a file of its own, or makes in one place, and hands on.

Nothing here is read from the environment, and nothing is set by importing it; every field is an argument of the class it is
named after, with the same default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretBytes

from engine.saving import SavePolicy

if TYPE_CHECKING:
    from engine.clock import Clock
    from engine.executor import GraphExecutor
    from engine.graph import FlowGraph
    from engine.observing import Observer
    from engine.resources import Provider
    from trailmark.checkpoint_stores import CheckpointStore, SQLCheckpointStore
    from trailmark.worker import Dispatcher, Report, Worker
    from trailmark.worker.worker import Flows

__all__ = ["ExecutorSettings", "Settings", "StoreSettings", "WorkerSettings"]

_SETTINGS = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

Period = Annotated[timedelta, Field(gt=timedelta(0))]


class StoreSettings(BaseModel):
    """Where runs are kept; see `SQLCheckpointStore`."""

    model_config = _SETTINGS

    url: str
    """``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user@host/database``."""
    lease: Period = timedelta(seconds=30)
    """How long a silent process keeps its runs."""
    synchronous: Literal["OFF", "NORMAL", "FULL", "EXTRA"] = "FULL"
    """SQLite's PRAGMA; FULL survives a power cut, NORMAL may lose the last commits in one, never the file."""
    chain_key: SecretBytes | None = None
    """Makes the digests HMACs, so that only a holder of the key can write a sound row."""

    def store(self) -> SQLCheckpointStore:
        """The store, to be opened with ``async with``.  Raises StoreUnavailableError (the URL is no such database), ArgumentError."""
        from trailmark.checkpoint_stores import SQLCheckpointStore

        key = None if self.chain_key is None else self.chain_key.get_secret_value()
        return SQLCheckpointStore(self.url, lease=self.lease, synchronous=self.synchronous, chain_key=key)


class ExecutorSettings(BaseModel):
    """How runs are driven; see `GraphExecutor`."""

    model_config = _SETTINGS

    max_steps: int = Field(default=1000, ge=1)
    """How many node entries a run may make over its whole life."""
    cancel_grace: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(seconds=5)
    """How long an async node that was cancelled or timed out is waited for."""
    strict: bool = False
    """Whether a run is checked against the contracts before it may complete."""
    capabilities: frozenset[str] = frozenset()
    """What the runs it starts may do."""
    saving: SavePolicy | None = None
    """When steps become durable; by default each one as it ends."""

    def executor(
        self, graph: FlowGraph, *, store: CheckpointStore, clock: Clock | None = None, observers: Sequence[Observer] = (),
        resources: Mapping[str, Provider] = MappingProxyType({}),
    ) -> GraphExecutor:  # fmt: skip
        """An executor of ``graph`` over ``store`` with these settings."""
        from engine.executor import GraphExecutor

        return GraphExecutor(graph, store=store, clock=clock, observers=observers, resources=resources, **_fields(self))


class WorkerSettings(BaseModel):
    """How a worker works; see `trailmark.worker.Worker`."""

    model_config = _SETTINGS

    concurrency: int = Field(default=10, ge=1)
    """How many runs are driven at once."""
    drain: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(seconds=30)
    """How long the bodies in flight may take when the worker is told to drain."""
    max_recoveries: int = Field(default=3, ge=2)
    """How often in a row a run whose process died is taken up again without a checkpoint coming of it."""

    def worker(
        self, flows: Flows, *, store: CheckpointStore, dispatcher: Dispatcher | None = None, clock: Clock | None = None,
        report: Callable[[Report], None] | None = None, observers: Iterable[Observer] = (), resources: Mapping[str, Provider] = MappingProxyType({}),
    ) -> Worker:  # fmt: skip
        """A worker for ``flows`` over ``store`` with these settings."""
        from trailmark.worker import Worker

        return Worker(
            flows, store=store, dispatcher=dispatcher, clock=clock, report=report, observers=observers, resources=resources, **_fields(self)
        )


class Settings(BaseModel):
    """Everything that is set by value, in one place.

    >>> settings = Settings.model_validate({"store": {"url": "sqlite+aiosqlite:///runs.db"}, "executor": {"max_steps": 50}})
    >>> settings.executor.max_steps, settings.worker.concurrency
    (50, 10)

    Raises pydantic's ValidationError, with every problem at once; an unknown setting is one.
    """

    model_config = _SETTINGS

    store: StoreSettings
    executor: ExecutorSettings = ExecutorSettings()
    worker: WorkerSettings = WorkerSettings()


def _fields(settings: BaseModel) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in type(settings).model_fields}
