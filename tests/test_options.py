"""No option is declared that no test gives: a parameter that does nothing would suggest a feature that is not there.

This reads the tests and runs nothing.  A keyword counts where it stands in a call of that name that the callable could take (so that
`handle.cancel(by=...)` counts for `RunHandle.cancel` and not for `GraphExecutor.cancel`, which needs a run); by place; or in a call of
a function that hands its ``**options`` on to it.  An option of the command line counts where it is typed behind the words of its own
command: in one call or list, the words of a helper that hands its ``*arguments`` on included.

What it does not see: whether the test shows what the option does (whoever writes the test breaks the option once and sees it go red),
of which class a method is where two could take the same call, and keywords or words that are put together elsewhere, in a dict or a
parameter of the test: those do not count.  ``--store`` and ``--debug`` are made once for all commands and count once here;
`test_cli` types them behind every command.
"""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import trailmark
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
from trailmark.cli.app import app
from trailmark.events import Delivery, follow, last_events
from trailmark.testing import replay
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
        "start", "submit", "resume", "attach", "cancel", "stop", "give_back", "shutdown", "fork", "edit", "events", "signal", "suspend",
    )},
    **{f"RunHandle.{name}": getattr(trailmark.RunHandle, name) for name in (
        "result", "events", "stop", "shutdown", "abort", "cancel", "signal", "suspend",
    )},
    **{f"Decision.{name}": getattr(trailmark.Decision, name) for name in ("approve", "reject", "modify", "skip", "reroute")},
    "SQLCheckpointStore": SQLCheckpointStore, "MemoryCheckpointStore": MemoryCheckpointStore,
    **{f"SQLCheckpointStore.{name}": getattr(SQLCheckpointStore, name) for name in (
        "runs", "barriers", "decide", "signal", "due", "allow", "delegate", "grants", "revoke", "history", "request_cancel", "resolve_effect", "watch",
    )},
    "Worker": Worker, "Worker.run": Worker.run, "Worker.drain": Worker.drain, "Delivery": Delivery, "follow": follow,
    "last_events": last_events, "replay": replay,
    "StepContext.once": trailmark.StepContext.once, "StepContext.transaction": trailmark.StepContext.transaction,
    "StepContext.wait_for": trailmark.StepContext.wait_for, "StepContext.require": trailmark.StepContext.require,
}  # fmt: skip


# --- reading the tests --------------------------------------------------------------------------------------------------
class Call(NamedTuple):
    """What a call gives, as far as it stands there."""

    places: int
    keywords: frozenset[str]
    is_whole: bool
    """Whether it gives nothing else, by ``*`` or ``**``."""


class Source:
    """One file: its calls and lists, and the functions that hand on what they are given."""

    def __init__(self, path: Path) -> None:
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        self.lists = [node for node in nodes if isinstance(node, ast.List | ast.Tuple)]
        self.functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        self.named = [
            (node.targets[0].id, node.lineno, node.value.elts)
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List | ast.Tuple)
        ]


@cache
def sources() -> list[Source]:
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "trailmark" / "testing").rglob("*.py")]
    return [Source(path) for path in paths if path != Path(__file__)]


def last_name(callee: ast.expr) -> str:
    return str(getattr(callee, "attr", "") or getattr(callee, "id", ""))


def names_in(node: ast.expr) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


# --- Python -------------------------------------------------------------------------------------------------------------
@cache
def calls() -> dict[str, set[Call]]:
    """By the last name of what is called."""
    found = defaultdict(set)
    for source in sources():
        for call in source.calls:
            found[last_name(call.func)].add(
                Call(
                    sum(not isinstance(given, ast.Starred) for given in call.args),
                    frozenset(given.arg for given in call.keywords if given.arg is not None),
                    all(given.arg is not None for given in call.keywords)
                    and not any(isinstance(given, ast.Starred) for given in call.args),
                )
            )
    return found


@cache
def hands_on() -> dict[str, set[tuple[str, frozenset[str]]]]:
    """By the last name of what is called: the functions that call it with their own ``**options``, and what each keeps of them."""
    found = defaultdict(set)
    for function in (each for source in (*sources(), Source(ROOT / "engine" / "executor.py")) for each in source.functions):
        options = function.args.kwarg
        for call in ast.walk(function) if options is not None else ():
            if isinstance(call, ast.Call) and any(given.arg is None and options.arg in names_in(given.value) for given in call.keywords):
                kept = frozenset(each.arg for each in (*function.args.args, *function.args.kwonlyargs))
                found[last_name(call.func)].add((function.name, kept))
    return found


def calls_of(name: str, above: frozenset[str] = frozenset()) -> Iterator[Call]:
    yield from calls().get(name, ())
    for function, kept in hands_on().get(name, ()):
        if function not in above:
            for call in calls_of(function, above | {name, function}):
                yield Call(0, call.keywords - kept, is_whole=False)


@cache
def given_to(name: str) -> frozenset[str]:
    """The parameters of a callable that some call gives it."""
    signature, found = inspect.signature(CALLED[name]), set[str]()
    for call in calls_of(name.rpartition(".")[2]):
        bind = signature.bind if call.is_whole else signature.bind_partial
        places = call.places + ("self" in signature.parameters)
        try:
            found.update(bind(*range(places), **dict.fromkeys(call.keywords)).arguments)
        except TypeError:
            continue  # something else of the same name
    return frozenset(found)


OPTIONS = sorted(
    (name, option) for name, called in CALLED.items() for option in inspect.signature(called).parameters if option not in SPOKEN_OF
)


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name}-{option}" for name, option in OPTIONS])
def test_every_option_is_given_by_a_test(name: str, option: str) -> None:
    assert option in given_to(name), f"no test gives {name} its {option}"


# --- the command line ---------------------------------------------------------------------------------------------------
def words(source: Source, given: list[ast.expr]) -> list[str]:
    """What stands there, "" for what is made when the test runs; of a list by its name, what that held last."""
    found = []
    for each in given:
        if isinstance(each, ast.Starred) and isinstance(each.value, ast.Name):
            held = [elements for name, line, elements in source.named if name == each.value.id and line < each.lineno]
            found += words(source, held[-1]) if held else [""]
        else:
            found.append(each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else "")
    return found


@cache
def lines() -> list[list[str]]:
    """All calls and lists of the tests as words."""
    found = []
    for source in sources():
        found += [words(source, each.elts) for each in source.lists]
        first_words = defaultdict(list)
        for function in source.functions:
            handed = function.args.vararg.arg if function.args.vararg else None
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                if any(isinstance(each, ast.Starred) and names_in(each) == {handed} for each in call.args):
                    first_words[function.name].append(words(source, call.args))
        for call in source.calls:
            typed = words(source, call.args)
            found += [typed, *(first + typed for first in first_words.get(last_name(call.func), ()))]
    return found


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
COMMANDS = {command for command, _option in TYPED}
FOR_ALL = {"--store", "--debug"}


@cache
def typed_behind() -> dict[str, set[str]]:
    """By command: the words that a test types behind it."""
    found = defaultdict(set)
    for line in lines():
        for index in range(len(line)):
            if command := next((each for each in (" ".join(line[index : index + 2]), line[index]) if each in COMMANDS), None):
                found[command].update(word.partition("=")[0] for word in line[index + len(command.split()) :])
                break
    return found


@pytest.mark.parametrize(("command", "option"), TYPED, ids=[f"{command} {option}" for command, option in TYPED])
def test_every_option_of_the_command_line_is_typed_by_a_test(command: str, option: str) -> None:
    behind = set().union(*typed_behind().values()) if option in FOR_ALL else typed_behind().get(command, set())
    assert behind.intersection(option.split("/")), f"no test types trailmark {command} {option}"
