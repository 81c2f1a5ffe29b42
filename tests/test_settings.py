"""What can be set, as one object: it says all there is, does what the arguments do, and nothing is read behind anybody's back."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import trailmark
from trailmark import END, Flow, GraphExecutor, RunFailedError, SavePolicy
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
from trailmark.settings import ExecutorSettings, Settings, StoreSettings, WorkerSettings
from trailmark.worker import Worker

BY_CODE = {"self", "graph", "store", "clock", "observers", "flows", "dispatcher", "report", "now", "resources"}
"""Arguments that are objects of the program and not values that one writes into a file."""


@pytest.mark.parametrize(
    ("settings", "made"), [(StoreSettings, SQLCheckpointStore), (ExecutorSettings, GraphExecutor), (WorkerSettings, Worker)]
)
def test_every_argument_that_is_a_value_is_a_setting_with_the_same_default(settings: type[BaseModel], made: Any) -> None:
    arguments = {name: each for name, each in inspect.signature(made.__init__).parameters.items() if name not in BY_CODE}
    assert set(settings.model_fields) == set(arguments)
    for name, field in settings.model_fields.items():
        if field.is_required():
            assert arguments[name].default is inspect.Parameter.empty
        else:
            default = field.get_default()
            assert default == (frozenset(arguments[name].default) if isinstance(default, frozenset) else arguments[name].default)
        assert field.description


async def test_settings_do_what_the_arguments_do(tmp_path: Path) -> None:
    settings = Settings.model_validate_json(
        f"""{{"store": {{"url": "sqlite+aiosqlite:///{tmp_path}/runs.db", "lease": 7, "synchronous": "NORMAL", "chain_key": "secret"}},
        "executor": {{"max_steps": 2, "capabilities": ["pay"], "saving": {{"when": "every_n", "n": 2}}}},
        "worker": {{"concurrency": 3, "drain": "PT1M"}}}}"""
    )
    flow = Flow("settled", {"n": int})

    @flow.node
    async def count(state: Any, ctx: Any) -> dict[str, Any]:
        ctx.require("pay")
        return {"n": state["n"] + 1}

    flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 9, name="more").add_edge("count", END)
    async with settings.store.store() as store:
        assert "secret" not in repr(settings)
        executor = settings.executor.executor(flow.compile(), store=store)
        result = await executor.execute({"n": 0})
        assert (result.status, result.values["n"]) == ("limit_reached", 2)
        settings.worker.worker(flow, store=store)
        async with SQLCheckpointStore(settings.store.url) as keyless:
            assert await keyless.verify(result.run_id) != []
        assert await store.verify(result.run_id) == []


def test_all_that_is_wrong_with_settings_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"store": {"uri": "x"}, "executor": {"max_steps": 0, "saving": {"when": "never"}}, "worker": {"drain": -1}})
    assert {".".join(map(str, problem["loc"])) for problem in caught.value.errors()} == {
        "store.url", "store.uri", "executor.max_steps", "executor.saving.when", "worker.drain",
    }  # fmt: skip


def test_nothing_but_the_command_line_and_the_test_kit_reads_the_environment() -> None:
    root = Path(trailmark.__file__).resolve().parent.parent
    files = [path for package in ("trailmark", "engine", "checkpoint_stores", "reducers") for path in (root / package).rglob("*.py")]
    reading = {path.relative_to(root).as_posix() for path in files if re.search(r"\benviron\b|getenv", path.read_text("utf-8"))}
    assert {path.split("/")[1] for path in reading} <= {"cli", "testing", "demo"}


async def test_a_refused_capability_is_refused_by_settings_too() -> None:
    flow = Flow("refused", {"n": int}).add_node("pay", lambda state, ctx: ctx.require("pay")).set_entry("pay").add_edge("pay", END)
    with pytest.raises(RunFailedError, match="pay"):
        await ExecutorSettings().executor(flow.compile(), store=MemoryCheckpointStore()).execute({"n": 0})
    assert (ExecutorSettings(saving=SavePolicy()).saving, StoreSettings(url="x").lease) == (SavePolicy(), timedelta(seconds=30))
