"""No option is declared that no test gives: a parameter that does nothing would suggest a feature that is not there.

What an option does is shown by the tests that give it; here it is only made sure that there is one for each.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import trailmark
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
from trailmark.cli.app import app
from trailmark.events import Delivery, follow
from trailmark.worker import Worker

ROOT = Path(__file__).resolve().parent.parent
SPOKEN_OF = {"self", "name", "description", "args", "options"}
"""What is given by place, or is words for people."""

CALLED: dict[str, Any] = {
    "Flow": trailmark.Flow, "branch": trailmark.branch, "best_effort": trailmark.best_effort,
    **{f"Flow.{name}": getattr(trailmark.Flow, name) for name in vars(trailmark.Flow) if name.startswith("add_") or name == "set_entry"},
    **{name: getattr(trailmark, name) for name in (
        "Retry", "Timeout", "CircuitBreaker", "RateLimit", "Bulkhead", "Backpressure", "SavePolicy", "Retention", "Migration", "Escalation",
        "Goto", "Fallback", "End", "Break", "Update", "Metrics", "prune",
    )},
    "GraphExecutor": trailmark.GraphExecutor,
    **{f"GraphExecutor.{name}": getattr(trailmark.GraphExecutor, name) for name in (
        "start", "submit", "resume", "attach", "cancel", "stop", "give_back", "shutdown", "fork", "edit", "events",
    )},
    **{f"RunHandle.{name}": getattr(trailmark.RunHandle, name) for name in ("result", "events", "stop", "shutdown", "abort", "cancel")},
    "SQLCheckpointStore": SQLCheckpointStore, "MemoryCheckpointStore": MemoryCheckpointStore,
    **{f"SQLCheckpointStore.{name}": getattr(SQLCheckpointStore, name) for name in ("runs", "barriers", "decide", "signal", "due", "allow", "delegate")},
    "Worker": Worker, "Worker.run": Worker.run, "Worker.drain": Worker.drain, "Delivery": Delivery, "follow": follow,
    "StepContext.once": trailmark.StepContext.once, "StepContext.transaction": trailmark.StepContext.transaction,
    "StepContext.wait_for": trailmark.StepContext.wait_for, "StepContext.require": trailmark.StepContext.require,
}  # fmt: skip


@cache
def given() -> frozenset[str]:
    """Every word that a test gives something under, and every option that one types."""
    words: set[str] = set()
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "trailmark" / "testing").glob("*contract.py")]:
        if path.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg is not None:
                words.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 40:
                words.add(node.value.partition("=")[0])
    return frozenset(words)


OPTIONS = sorted(
    (name, option) for name, called in CALLED.items() for option in inspect.signature(called).parameters if option not in SPOKEN_OF
)


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name}-{option}" for name, option in OPTIONS])
def test_every_option_is_given_by_a_test(name: str, option: str) -> None:
    by_place = inspect.signature(CALLED[name]).parameters[option].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = inspect.signature(CALLED[name]).parameters[option].default is inspect.Parameter.empty
    assert option in given() or (by_place and required), f"no test gives {name} its {option}"


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(command, its option in all its spellings)."""
    found = []
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    if not hasattr(group, "commands"):
        options = [each.opts for each in group.params if each.opts[0].startswith("-") and each.name != "help"]
        found += [(" ".join(path), "/".join(spellings)) for spellings in options]
    return found


TYPED = sorted(set(commands(typer.main.get_command(app))))


@pytest.mark.parametrize(("command", "option"), TYPED, ids=[f"{command} {option}" for command, option in TYPED])
def test_every_option_of_the_command_line_is_typed_by_a_test(command: str, option: str) -> None:
    assert given().intersection(option.split("/")), f"no test types trailmark {command} {option}"
