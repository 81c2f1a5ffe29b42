"""Counters and histograms of runs, as Prometheus text.  Needs ``pip install 'trailmark[metrics]'``.

Fed by what an executor tells its observers after each durable commit, and by what executors and stores tell when they are asked: nothing
is measured in the path of a step.  Each `Metrics` has a registry of its own; there is no global state, and no server is started.

    metrics = Metrics()
    executor = GraphExecutor(graph, store=store, observers=[metrics.observer(graph.name)])
    metrics.watch(executor)
    ...
    await metrics.refresh(store)
    text = metrics.text()
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from checkpoint_stores.codec import unpack
from reducers.errors import TrailmarkError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from checkpoint_stores.protocol import CheckpointStore
    from engine.executor import GraphExecutor
    from engine.observing import Committed, Observer

__all__ = ["Metrics", "MetricsUnavailableError"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Metrics.text` returns."""

_OUTCOMES: Final = {
    "step": "done", "parallel": "opened", "map": "opened", "subflow": "opened", "barrier": "opened", "join": "joined",
    "decision": "decided", "retry": "retried", "fallback": "fell_back", "failure": "failed",
}  # fmt: skip
"""What became of a node, by the kind of checkpoint."""

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SECOND: Final = 1_000_000


class MetricsUnavailableError(TrailmarkError, ImportError):
    """Metrics were asked for, and ``prometheus_client`` is not installed."""

    def __init__(self) -> None:
        super().__init__("metrics need prometheus_client, which is not installed; type: pip install 'trailmark[metrics]'")


class Metrics:
    """What happened in the runs of some executors, counted.

    ``registry`` is a Prometheus registry to register with; by default one of its own.

    Raises MetricsUnavailableError where ``prometheus_client`` is not installed.

    >>> import asyncio
    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> flow = Flow("count", {"n": int}).add_node("one", lambda state: {"n": 1}).set_entry("one").add_edge("one", END)
    >>> metrics = Metrics()
    >>> executor = GraphExecutor(flow.compile(), store=MemoryCheckpointStore(), observers=[metrics.observer("count")])
    >>> asyncio.run(executor.execute({})).status
    'completed'
    >>> 'trailmark_runs_total{flow="count",status="completed"} 1.0' in metrics.text()
    True
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            raise MetricsUnavailableError from error
        self.registry = registry if registry is not None else CollectorRegistry()
        """The Prometheus registry, for whoever serves it himself."""
        made: dict[str, Any] = {"registry": self.registry}
        self._runs = Counter("trailmark_runs", "Runs that ended or stopped, by status.", ("flow", "status"), **made)
        self._steps = Counter("trailmark_steps", "Checkpoints about a node, by what became of it.", ("flow", "node", "outcome"), **made)
        self._body = Histogram(
            "trailmark_step_seconds", "From the start of a node's function until its checkpoint was durable.", ("flow", "node"),
            buckets=_BUCKETS, **made,
        )  # fmt: skip
        self._commit = Histogram(
            "trailmark_commit_seconds", "From handing a commit to the store until it was durable.", ("flow",), buckets=_BUCKETS, **made
        )
        self._stored_runs = Gauge("trailmark_stored_runs", "Runs in the store by status, as of the last refresh.", ("status",), **made)
        self._open = Gauge("trailmark_barriers_open", "Barriers that wait for people, as of the last refresh.", **made)
        self._executors: weakref.WeakSet[GraphExecutor] = weakref.WeakSet()
        self.registry.register(_OfExecutors(self._executors))

    def observer(self, flow: str) -> Observer:
        """What to give to ``GraphExecutor(observers=[...])``; ``flow`` is how the runs are labelled."""
        runs, steps, body, commit = self._runs, self._steps, self._body, self._commit.labels(flow)

        def count(told: Committed) -> None:
            row = told.row
            if told.took is not None:
                commit.observe(told.took / _SECOND)
            outcome = _OUTCOMES.get(row.kind)
            if outcome is not None and row.node:
                steps.labels(flow, row.node, outcome).inc()
                if row.started_at:
                    # The two clocks are measured against each other once; a hair may be missing.
                    body.labels(flow, row.node).observe(max(0, told.committed_at - row.started_at) / _SECOND)
            if told.status not in ("running", "waiting"):
                for op in unpack(row.payload):
                    if op[0] == "status":
                        runs.labels(flow, op[1]).inc()

        return count

    def watch(self, executor: GraphExecutor) -> None:
        """Ask this executor, too, whenever the metrics are read: what it drives, strays, and who waits at its middleware."""
        self._executors.add(executor)

    async def refresh(self, store: CheckpointStore) -> None:
        """Ask a store how many runs it holds by status, and how many barriers are open.  Raises StoreUnavailableError."""
        found = await store.stats()
        self._stored_runs.clear()
        for status, count in found["runs"].items():
            self._stored_runs.labels(status).set(count)
        self._open.set(found["barriers_open"])

    def text(self) -> str:
        """Everything counted so far, in the Prometheus text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()


class _OfExecutors:
    """Asks executors when metrics are read."""

    def __init__(self, executors: weakref.WeakSet[GraphExecutor]) -> None:
        self._executors = executors

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        place = ("flow", "node", "middleware")
        driving = GaugeMetricFamily("trailmark_runs_driven", "Runs that executors of this process drive now.", labels=("flow",))
        strays = GaugeMetricFamily("trailmark_strays", "Node functions that were given up and still run.", labels=("flow",))
        waiting = GaugeMetricFamily("trailmark_middleware_waiting", "Bodies that wait at a middleware now.", labels=place)
        inside = GaugeMetricFamily("trailmark_middleware_inside", "Places of a bulkhead that are taken now.", labels=place)
        is_open = GaugeMetricFamily("trailmark_circuit_open", "1 where a circuit breaker is not closed.", labels=place)
        waits = CounterMetricFamily("trailmark_middleware_waits", "How often a body had to wait.", labels=place)
        waited = CounterMetricFamily("trailmark_middleware_waited_seconds", "Seconds that bodies waited.", labels=place)
        refused = CounterMetricFamily("trailmark_middleware_refused", "Calls that were refused.", labels=place)
        families: tuple[Any, ...] = (driving, strays, waiting, inside, is_open, waits, waited, refused)
        totals: dict[tuple[int, tuple[str, ...]], float] = {}

        def add(family: Any, labels: tuple[str, ...], value: float) -> None:
            key = families.index(family), labels
            totals[key] = totals.get(key, 0) + value  # several executors may drive runs of one flow

        for executor in list(self._executors):
            flow = executor.graph.name
            told = executor.statistics()
            add(driving, (flow,), told.driving)
            add(strays, (flow,), told.strays)
            for each in told.middleware:
                labels: tuple[str, ...] = (flow, each.node, each.name)
                for family, value in ((waiting, each.waiting), (waits, each.waits), (waited, each.waited)):
                    if not each.state:
                        add(family, labels, value)
                if each.kind == "Bulkhead":
                    add(inside, labels, each.inside)
                if each.kind in ("Bulkhead", "CircuitBreaker"):
                    add(refused, labels, each.refused)
                if each.state:
                    add(is_open, labels, each.state != "closed")
        for (index, names), total in totals.items():
            families[index].add_metric(names, total)
        yield from families
