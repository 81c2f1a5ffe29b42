"""Metrics are fed by what is durable, have a registry of their own, and say what to install where they cannot be had."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from checkpoint_stores.memory import MemoryCheckpointStore
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.middleware import Bulkhead, CircuitBreaker
from engine.plan import END, Retry
from trailmark.metrics import Metrics

SECOND = timedelta(seconds=1)


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_what_happens_in_runs_is_counted_once_it_is_durable() -> None:
    asked: list[int] = []

    async def flaky(state: Any) -> dict[str, Any]:
        asked.append(1)
        if len(asked) == 1:
            raise OSError
        return {"n": 1}

    flow = Flow("counted", {"n": int}).add_node("flaky", flaky, retry=Retry(first=timedelta(0))).add_barrier("review")
    flow.set_entry("flaky").add_edge("flaky", "review").add_edge("review", END)
    metrics, store = Metrics(), MemoryCheckpointStore()
    executor = GraphExecutor(flow.compile(), store=store, observers=[metrics.observer("counted")])
    run = await executor.start({})
    await run.result()
    await metrics.refresh(store)
    assert read(metrics, "trailmark_barriers_open") == 1
    assert read(metrics, "trailmark_stored_runs", status="waiting") == 1
    await run.decide("review", Decision.approve(by="ana"))
    await run.result()
    await metrics.refresh(store)
    counted = {
        (node, outcome): read(metrics, "trailmark_steps_total", flow="counted", node=node, outcome=outcome)
        for node, outcome in (("flaky", "retried"), ("flaky", "done"), ("review", "opened"), ("review", "decided"))
    }
    assert set(counted.values()) == {1.0}, counted
    assert read(metrics, "trailmark_runs_total", flow="counted", status="completed") == 1
    assert read(metrics, "trailmark_step_seconds_count", flow="counted", node="flaky") == 2
    assert (read(metrics, "trailmark_commit_seconds_count", flow="counted") or 0) >= 3
    assert (read(metrics, "trailmark_barriers_open"), read(metrics, "trailmark_stored_runs", status="waiting")) == (0, None)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_the_numbers_of_a_run_are_final_when_its_result_is_there_however_it_ends(how: str) -> None:
    begun = asyncio.Event()
    flow = Flow("ending", {"n": int})

    @flow.node
    async def first(state: Any) -> dict[str, Any]:
        return {"n": 1}

    @flow.node
    async def last(state: Any) -> dict[str, Any]:
        begun.set()
        if how == "cancelled":
            await asyncio.Event().wait()
        if how == "failed":
            raise OSError("no")
        return {"n": 2}

    flow.set_entry("first").add_edge("first", "last").add_edge("last", END)
    metrics = Metrics()
    executor = GraphExecutor(flow.compile(), store=MemoryCheckpointStore(), observers=[metrics.observer("ending")])
    run = await executor.start({})
    await begun.wait()
    if how == "cancelled":
        assert (await run.cancel(by="ana")).status == "cancelled"
    elif how == "failed":
        with pytest.raises(RunFailedError):
            await run.result()
    else:
        assert (await run.result()).status == "completed"
    runs = {status: read(metrics, "trailmark_runs_total", flow="ending", status=status) for status in ("completed", "failed", "cancelled")}
    assert runs == {**dict.fromkeys(runs), how: 1.0}
    steps = {node: read(metrics, "trailmark_steps_total", flow="ending", node=node, outcome="done") for node in ("first", "last")}
    assert steps == {"first": 1.0, "last": 1.0 if how == "completed" else None}
    before = metrics.text()
    await asyncio.sleep(0)
    assert metrics.text() == before


async def test_who_waits_and_who_is_refused_is_asked_of_the_executor_when_the_metrics_are_read() -> None:
    let_go = asyncio.Event()

    async def slow(state: Any) -> None:
        await let_go.wait()

    flow = (
        Flow("waiting", {"n": int})
        .add_node("slow", slow, middleware=[CircuitBreaker(), Bulkhead(1)])
        .set_entry("slow")
        .add_edge("slow", END)
    )
    metrics = Metrics()
    executor = GraphExecutor(flow.compile(), store=MemoryCheckpointStore())
    metrics.watch(executor)
    runs = [await executor.start({}) for _ in range(3)]
    place = {"flow": "waiting", "node": "slow", "middleware": "bulkhead"}
    while read(metrics, "trailmark_middleware_waiting", **place) != 2:
        await asyncio.sleep(0)
    assert read(metrics, "trailmark_middleware_inside", **place) == 1
    assert read(metrics, "trailmark_runs_driven", flow="waiting") == 3
    assert read(metrics, "trailmark_circuit_open", flow="waiting", node="slow", middleware="circuit_breaker") == 0
    let_go.set()
    for run in runs:
        await run.result()
    assert read(metrics, "trailmark_middleware_waits_total", **place) == 2
    text = metrics.text()
    assert "# TYPE trailmark_middleware_waits_total counter" in text or "trailmark_middleware_waits_total{" in text
    assert 'trailmark_strays{flow="waiting"} 0.0' in text


def test_a_registry_that_is_given_holds_the_numbers() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry=registry)
    metrics._runs.labels("f", "completed").inc()
    assert registry.get_sample_value("trailmark_runs_total", {"flow": "f", "status": "completed"}) == 1


def test_two_metrics_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one._runs.labels("f", "completed").inc()
    assert read(other, "trailmark_runs_total", flow="f", status="completed") is None


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
import trailmark
try:
    trailmark.Metrics()
except trailmark.MetricsUnavailableError as error:
    print(error)
"""


def test_metrics_that_cannot_be_had_are_a_typed_error_that_says_what_to_install() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert "pip install 'trailmark[metrics]'" in ended.stdout


def test_importing_trailmark_loads_no_prometheus() -> None:
    code = "import sys, trailmark; trailmark.GraphExecutor; print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize("package", ["engine", "checkpoint_stores", "reducers"])
def test_no_behaviour_is_steered_by_environment_variables(package: str) -> None:
    from pathlib import Path

    import trailmark

    root = Path(trailmark.__file__).resolve().parent.parent / package
    reading = [path.name for path in root.rglob("*.py") if "environ" in (text := path.read_text("utf-8")) or "getenv" in text]
    assert reading == []
