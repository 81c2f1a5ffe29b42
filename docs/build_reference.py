"""Writes the reference pages that are made from the code (``make docs``); a test says when they are out of date.

Nothing is said here that the code can say itself: pages come from docstrings, signatures, the tables' metadata.  What is written
here is what no single docstring can know: who must act on an error, and in which order things are shown.
"""

# ruff: noqa: INP001 - a script, not a module of a package

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import trailmark
import trailmark.checkpoint_stores
import trailmark.events
import trailmark.reducers
import trailmark.testing
import trailmark.worker
from checkpoint_stores import errors as store_errors
from checkpoint_stores import ops, records
from checkpoint_stores.records import RunStatus
from checkpoint_stores.sql.schema import metadata
from checkpoint_stores.statuses import EVENTS_IN, LEADS_TO, RunEvent
from engine import errors as engine_errors
from reducers import errors as reducer_errors
from trailmark.cli.reference import reference

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- Written by docs/build_reference.py (`make docs`) from the code; changes here are lost. -->"

MODULES: tuple[ModuleType, ...] = (
    trailmark,
    trailmark.checkpoint_stores,
    trailmark.events,
    trailmark.reducers,
    trailmark.testing,
    trailmark.worker,
)
"""What users import."""

# --- docstrings and signatures ----------------------------------------------------------------------------------------


def said(text: str | None) -> str:
    """A docstring as Markdown: what is indented under Args and Raises becomes a list."""
    lines = inspect.cleandoc(text or "").splitlines()
    made: list[str] = []
    in_list = in_code = False
    for line in lines:
        if line.startswith(">>> ") and not in_code:
            made += ["", "```pycon"]
            in_code = True
        elif in_code and not line.strip():
            made.append("```")
            in_code = False
        if re.fullmatch(r"(Args|Raises):", line):
            made += ["", line, ""]
            in_list = True
        elif in_list and (entry := re.match(r"^    (\w+): (.*)", line)):
            made.append(f"- `{entry[1]}`: {_code(entry[2])}")
        elif in_list and line.startswith("    "):
            made.append(f"  {_code(line.strip())}")
        else:
            in_list = in_list and not line.strip()
            made.append(line if in_code else _code(line))
    if in_code:
        made.append("```")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(made)).strip()


def _code(line: str) -> str:
    return line if line.startswith("    ") else line.replace("``", "`")


def signature_of(name: str, called: Any) -> str:
    """How it is called, one line where it fits."""
    try:
        signature = inspect.signature(called)
    except (ValueError, TypeError):
        return name
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown and not any(each.startswith("*") for each in shown):
            shown.append("*")
        shown.append(_parameter(parameter))
        if parameter.kind is parameter.POSITIONAL_ONLY:
            shown.append("/")
    shown = [each for index, each in enumerate(shown) if each != "/" or "/" not in shown[index + 1 :]]
    result = "" if signature.return_annotation in (signature.empty, "None") else f" -> {_type(signature.return_annotation)}"
    line = f"{name}({', '.join(shown)}){result}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in shown) + f"){result}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**" if parameter.kind is parameter.VAR_KEYWORD else ""
    annotation = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{annotation}"
    return f"{parameter.name}{annotation}{' = ' if annotation else '='}{_readable(parameter.default)}"


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(Path(inspect.getsourcefile(import_module(module)) or "").read_text(encoding="utf-8"))


def _strings(body: list[ast.stmt]) -> dict[str, str]:
    """What stands under assignments as a string, by the name assigned."""
    found = {}
    for statement, following in pairwise(body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        name = getattr(target, "id", getattr(target, "attr", None))
        if (
            name
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            found[name] = " ".join(following.value.value.split())
    return found


def _class_node(kind: type) -> ast.ClassDef | None:
    return next((each for each in ast.walk(_tree(kind.__module__)) if isinstance(each, ast.ClassDef) and each.name == kind.__name__), None)


def fields_of(kind: type) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field of a dataclass or named tuple, and of public attributes with a string under them."""
    node = _class_node(kind)
    if node is None:
        return
    strings = _strings(node.body)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and not statement.target.id.startswith("_"):
            default = (
                f" = {ast.unparse(statement.value)}" if statement.value is not None and "field(" not in ast.unparse(statement.value) else ""
            )
            yield statement.target.id, ast.unparse(statement.annotation) + default, strings.get(statement.target.id, "")
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            for name, text in _strings(method.body).items():
                if not name.startswith("_"):
                    yield name, "", text


def string_under(name: str, homes: tuple[str, ...]) -> str:
    """The string under a module's assignment to ``name``."""
    return next((text for home in homes if (text := _strings(_tree(home).body).get(name))), "")


# --- api.md -----------------------------------------------------------------------------------------------------------


def api() -> str:
    """Every public name, its signature and its docstring."""
    parts = [
        "# Python API", "", MADE, "",
        "Import from these five modules and no other; everything else may move. Errors have [a page of their own](errors.md).", "",
        *(f"- [`{module.__name__}`](#{module.__name__.replace('.', '')})" for module in MODULES),
    ]  # fmt: skip
    for module in MODULES:
        parts += ["", f"## {module.__name__}", ""]
        names = [name for name in module.__all__ if not _is_error(getattr(module, name))]
        if module is not trailmark:
            names = [name for name in names if name not in trailmark.__all__]
        for name in names:
            parts += ["", *_entry(name, getattr(module, name))]
    return "\n".join(parts)


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


_HOMES = (
    "engine.outcomes", "engine.plan", "engine.catalog", "engine.sse", "reducers.builtin", "reducers.changes", "checkpoint_stores.records", "checkpoint_stores.protocol",
)  # fmt: skip


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if isinstance(value, type):
        yield from _class(name, value)
    elif callable(value) and not dataclasses.is_dataclass(value):
        yield f"```python\n{signature_of(name, value)}\n```\n\n{said(value.__doc__)}"
    else:
        meaning = string_under(name, _HOMES)
        shown = (
            f"one of {', '.join(f'`{each}`' for each in get_args(value))}" if typing.get_origin(value) is typing.Literal else f"`{value!r}`"
        )
        yield f"{shown}\n\n{said(meaning)}".strip()


def _class(name: str, kind: type) -> Iterator[str]:
    is_data = dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")
    is_protocol = bool(getattr(kind, "_is_protocol", False))
    if not is_data and not is_protocol:
        yield f"```python\n{signature_of(name, kind)}\n```\n"
    yield said(kind.__doc__)
    rows = list(fields_of(kind))
    if rows:
        yield ""
        yield "| field | type | |\n|---|---|---|"
        for field, annotation, meaning in rows:
            shown = f"`{annotation}`".replace("|", "\\|") if annotation else ""
            yield f"| `{field}` | {shown} | {_code(meaning).replace('|', chr(92) + '|')} |"
    for member, method in vars(kind).items():
        if member.startswith("_") or not (callable(method) or isinstance(method, property | classmethod | staticmethod)):
            continue
        text = inspect.getdoc(getattr(method, "fget", None) or getattr(kind, member))
        if not text or isinstance(method, type):
            continue
        yield ""
        if isinstance(method, property):
            yield f"**`{member}`** {said(text)}"
        else:
            called = getattr(kind, member)
            word = "async " if inspect.iscoroutinefunction(called) else ""
            yield f"```python\n{word}{signature_of(member, called)}\n```\n\n{said(text)}"


# --- errors.md --------------------------------------------------------------------------------------------------------

_AUTHOR = "The flow's author changes the flow."
_NODE = "The node's author; or a fallback edge takes it."
_DECIDER = "Whoever decides. Nothing was recorded."
_OPERATOR = "The operator."

WHO: dict[str, str] = {
    "TrailmarkError": "",
    "FlowError": _AUTHOR,
    "FlowValidationError": "The flow's author: each of the `problems` says what to change.",
    "InputError": "Whoever starts the run: `problems` lists what to correct. No run was created.",
    "EditError": "Whoever forks the run: `problems` lists what to correct. No run was created.",
    "ReadOnlyStateError": "The node's author: return the new value instead of assigning to the state.",
    "UnsetKeyError": "The node's author, or the flow's: give the key a default, or read it with `state.get(key)` where the state is a mapping.",
    "BadEventIdError": "Whoever asks for events: give the id of an event as it was sent.",
    "SlowConsumerError": "Whoever watches. The run goes on.",
    "NodeError": _NODE,
    "ReturnTypeError": "The node's author: return a mapping of what changed, or `None`. A fallback edge takes it.",
    "UpdateNotStorableError": "The node's author: return what the message says instead. A fallback edge takes it.",
    "UndeclaredKeyError": "The flow's author declares the key in the state, or the node's author writes another. A fallback edge takes it.",
    "UnroutedError": "The flow's author: add a normal edge, which is taken where no condition holds.",
    "LoopLimitExceeded": "The flow's author: a larger `max_visits`, or a fallback edge that says where to go then.",
    "MergeConflictError": "The flow's author: declare a reducer for the key, or let one branch alone write it. A fallback edge takes it.",
    "GotoError": "The flow's author declares the edge, or the node's author names another node. A fallback edge takes it.",
    "ConditionError": "The author of the condition. A fallback edge takes it.",
    "RejectedError": "Nobody, if it is meant; else the flow's author says what a rejection does. A fallback edge takes it only where it names it.",
    "BarrierTimeoutError": "Whoever should have decided; `on_timeout=` or a fallback edge says what follows when nobody does.",
    "StaleContextError": "The node's author: a thread that outlives its timeout may ask `ctx.ended`.",
    "MissingResourceError": "Whoever drives the flow's runs: say what opens it. Nothing was opened, no run was created.",
    "ResourceError": "The operator, where it is out of reach; else the author of the function that opens it. The run can be resumed.",
    "UndeclaredResourceError": "The flow's author: say in `Flow(..., needs=...)` what its nodes use.",
    "ResourceNotClosedWarning": "The author of the function that opens it. The run is as it is stored.",
    "NoStepError": "The node's author: `current_step()` is for code that a node calls.",
    "WrongThreadError": "The node's author: the message names the method for this kind of node.",
    "EffectInDoubtError": "A person who finds out whether it happened: `trailmark runs resolve-effect`; then the run is resumed.",
    "CapabilityDenied": "Whoever starts or resumes the run: `capabilities=`. Nothing happened.",
    "EffectError": "Whoever settles the effect; nothing was changed.",
    "UnknownEffectError": "Whoever settles the effect: `trailmark runs effects RUN` lists them. Nothing was changed.",
    "AmbiguousEffectError": "Whoever settles the effect: give the key of one. Nothing was changed.",
    "EffectNotInDoubtError": "Nobody: it is settled, or its process is still at it. Nothing was changed.",
    "TransactionError": "The node's author; nothing of the transaction was committed.",
    "TransactionOverError": "The node's author: the message says what belongs where. Nothing of the transaction was committed.",
    "TransactionTimeoutError": "The node's author: slow work goes before the first statement, or `limit=`. It was rolled back.",
    "TransactionUnavailableError": "Whoever chose the store: SQLCheckpointStore has a database. Nothing happened.",
    "TenantError": "The caller: a tenant's view is asked only about that tenant. Nothing happened.",
    "FinalStateError": "The flow's author: the state model's rules must hold at the end.",
    "GraphChangedError": 'Whoever deployed: `objections` say what to do, each for itself; `has_place` whether `mode="force"` goes on. Nothing was changed.',
    "MigrationError": "The flow's author corrects the migration, or the run is resumed later: the message says which. Nothing was changed.",
    "WrongFlowError": "The caller: resume it with an executor of the run's own flow.",
    "NodeTimeoutError": "The node's author: a longer `timeout=`, a `retry=`, or a fallback edge that takes it.",
    "BranchTimeoutError": "The flow's author: a longer `branch_timeout=`, or a fallback edge that takes it.",
    "FallbackRequested": "The flow's author: a fallback edge says where to go when the node gives up.",
    "MetricsUnavailableError": "Whoever installs: `pip install 'trailmark[metrics]'`.",
    "ContractError": "Whoever keeps the store, or us: `runs check` and `db verify` say what is broken. Nothing of the last step was committed.",
    "ForkError": "The caller: fork at an earlier checkpoint.",
    "RunFailedError": "Whoever asked for the result: `result.error` names the node, the cause says more, a fork goes on from an earlier checkpoint.",
    "BranchesFailedError": _NODE,
    "ExecutorClosedError": "The caller: make a new executor over the same store. Nothing happened.",
    "RunningLoopError": "The caller: `await executor.execute(...)`. Nothing happened.",
    "DrivenHereError": "The caller: `await executor.result(run_id)` waits for it.",
    "ArgumentError": "The caller: the message says what was expected. Nothing happened.",
    "StoreError": "",
    "StoreUnavailableError": _OPERATOR + " Nothing was lost; resume when the database is back.",
    "SchemaVersionError": _OPERATOR + " `trailmark db upgrade`, a newer trailmark, or another database: the message says which.",
    "RunNotFoundError": "The caller: `trailmark runs ls` lists the runs.",
    "AmbiguousRunError": "The caller: give a whole id, or its last eight characters.",
    "RunExistsError": "The caller: resume that run, or use another key.",
    "RunEndedError": "Nobody: it is over. `trailmark runs show` tells how it ended; a fork goes on from an earlier checkpoint.",
    "IllegalTransitionError": "The caller: the message says what can happen to a run in this status.",
    "LeaseHeldError": "Nobody: another process has the run. Wait, or take it over with `takeover=True`.",
    "LeaseLostError": "Nobody: another process has the run now. This one wrote nothing.",
    "RunNotEndedError": "The operator: cancel the run first.",
    "RunFileError": "The operator: export the run again, and carry the file whole.",
    "RunMovedError": "The caller: look again, then repeat.",
    "RunKeyConflictError": 'The caller: use another key, or `if_exists="supersede"`.',
    "SignalError": "Whoever sent the signal: the message says what the run waits for. Nothing was kept.",
    "WaitTimeoutError": "Whoever should have sent the signal; `on_timeout=` or a fallback edge says what follows when nobody does.",
    "TimerError": "The flow's author: write a timedelta or an aware datetime to the key before the timer.",
    "UndeclaredSignalError": "The flow's author: declare the event with `add_signal`.",
    "NoItemsError": "The flow's author: write a list to the key before the map. A fallback edge takes it.",
    "CheckpointNotFoundError": "The caller: `trailmark runs steps` lists the checkpoints.",
    "CheckpointCorruptError": _OPERATOR + " What came before can be read and forked.",
    "CodecError": "Whoever wrote the value.",
    "UnserialisableError": "Whoever gave the value: plain data, or `register_type`; the message says which.",
    "DuplicateTypeError": "Whoever registers the type: another `name=`.",
    "BarrierError": _DECIDER,
    "GrantError": _DECIDER,
    "ReducerError": _NODE,
    "DuplicateReducerError": "Whoever registers the reducer: another name.",
    "ReducerFunctionError": "Whoever registers the reducer. Nothing was registered.",
    "ReducerAnnotationError": _AUTHOR,
    "UnknownReducerError": _AUTHOR,
    "PostgresUnavailableError": "Whoever runs the tests: install PostgreSQL, or name a server.",
    "StreamViolationError": "Whoever made the stream of events; of a run's own, tell us.",
    "SimulatedCrash": "Nobody: a test wanted it.",
    "TrailmarkWarning": "Nobody at once: the run is sound. It stands in `RunResult.warnings`, too.",
    "ObserverFailedWarning": "The observer's author. The run is sound, the observer has seen only a part of it.",
    "StrayBodyWarning": _NODE,
}
"""By the class or the nearest class above it."""


def public_errors() -> list[type[BaseException]]:
    """Every error class of the public modules and of the modules that errors live in, roots first."""
    found: dict[type[BaseException], None] = {}
    for module in (*MODULES, reducer_errors, store_errors, engine_errors):
        for name in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, name)
            if (
                not name.startswith("_")
                and _is_error(value)
                and value.__module__.split(".")[0] in ("trailmark", "engine", "checkpoint_stores", "reducers")
            ):
                found[value] = None
    return sorted(found, key=lambda kind: (_home_order(kind), len(kind.__mro__), kind.__name__))


def _home_order(kind: type) -> int:
    if issubclass(kind, Warning):
        return 5
    if issubclass(kind, store_errors.BarrierError | store_errors.GrantError):
        return 2
    return ["reducers", "engine", "", "checkpoint_stores", "trailmark"].index(kind.__module__.split(".")[0])


_GROUPS = ("Reducers, and the root of all", "Flows, nodes, runs", "Deciding", "Stores", "The test kit", "Warnings")


def who_must_act(kind: type[BaseException]) -> str:
    """Who must act.  Raises LookupError for an error nobody thought about."""
    for above in kind.__mro__:
        if above.__name__ in WHO:
            return WHO[above.__name__]
    raise LookupError(f"docs/build_reference.py: WHO does not say who must act on {kind.__name__}")


def errors() -> str:
    """Every error class: when, fields, who must act."""
    parts = [
        "# Errors", "", MADE, "",
        "Every error that trailmark raises on purpose is a `TrailmarkError`. Its fields hold the facts, its message is one sentence with the remedy.",
        "Errors of nodes (`NodeError` and what your functions raise) can be [retried and take fallback edges](../howto/failures.md).",
        "The command line's exit codes stand on [its page](cli.md#exit-codes).",
    ]  # fmt: skip
    group = None
    for kind in public_errors():
        if group != (group := _GROUPS[_home_order(kind)]):
            parts += ["", f"## {group}"]
        above = [each.__name__ for each in kind.__bases__ if each is not Exception]
        parts += ["", f"### {kind.__name__}", "", said(kind.__doc__).split("\n```")[0]]
        facts = []
        if who := who_must_act(kind):
            facts.append(f"- **Who must act:** {who}")
        if fields := _error_fields(kind):
            facts.append(f"- **Fields:** {', '.join(f'`{name}`' for name in fields)}")
        if above:
            facts.append(f"- **Is a:** {', '.join(f'`{name}`' for name in above)}")
        home = next((module.__name__ for module in MODULES if kind.__name__ in module.__all__), "")
        facts.append(f"- **Import from:** `{home}`" if home else "- Not imported by users: caught as what it is a kind of.")
        parts += ["", *facts]
    return "\n".join(parts)


def _error_fields(kind: type[BaseException]) -> list[str]:
    names: dict[str, None] = {}
    for above in reversed(kind.__mro__):
        node = _class_node(above) if above.__module__.split(".")[0] in ("trailmark", "engine", "checkpoint_stores", "reducers") else None
        for each in ast.walk(node) if node is not None else ():
            if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and not each.attr.startswith("_"):
                names[each.attr] = None
    return list(names)


# --- schema.md, statuses.md, rows.md ----------------------------------------------------------------------------------


def schema() -> str:
    """Tables and columns, from the metadata."""
    parts = [
        "# Tables", "", MADE, "",
        "The same on SQLite and PostgreSQL. Times are integer microseconds since the Unix epoch, UTC. What a user wrote stands only in binary columns,",
        "encoded. The revision is stamped in `trailmark_schema`. Reading is fine; whoever writes breaks the digest chain.",
    ]  # fmt: skip
    for table in metadata.sorted_tables:
        parts += ["", f"## {table.name}", "", table.info["doc"], "", "| column | type | |", "|---|---|---|"]
        for column in table.columns:
            key = " (key)" if column.primary_key else ""
            null = ", may be NULL" if column.nullable else ""
            parts.append(f"| `{column.name}`{key} | {column.type.compile().split('(')[0]}{null} | {column.doc} |")
    return "\n".join(parts)


STATUSES: dict[RunStatus, tuple[str, str]] = {
    "created": ("Submitted; nobody has driven it yet.", "a worker, or `resume`"),
    "ready": ("Given back by a process that left, or released by a person. Nothing keeps it from going on.", "a worker, or `resume`"),
    "running": ("A process drives the run, or did so until it died.", "a commit; a worker or `resume`, once its process is gone"),
    "draining": (
        "Its process is about to leave: node bodies in flight may finish, none is begun.",
        "the end of these bodies, or of their time",
    ),
    "waiting": ("Nothing can move it but people, signals or time. No process holds it.", "what it waits for, then a worker or `resume`"),
    "suspended": (
        "Stopped on request: `stop`, `suspend`, Ctrl-C, a cancelled caller, a closed executor; with a side effect in doubt; or a new fork.",
        "`resume`, or `runs release` and a worker",
    ),
    "limit_reached": ("It has made `max_steps` steps.", "`resume` with a larger `max_steps`"),
    "quarantined": (
        "Every process that took it up died with it, or (with `strict=True`) its checkpoints broke a contract. No worker takes it.",
        "`runs release` and a worker, or `resume`",
    ),
    "completed": ("It came to its end.", "nothing"),
    "failed": ("A node failed and nothing took the failure.", "nothing; `fork` it before the failure"),
    "cancelled": ("Somebody ended it.", "nothing"),
}
EVENTS: dict[RunEvent, str] = {
    "take": "A process takes the run: to drive it, or to end, release or quarantine it.",
    "park": "Nothing is left that could be done without people, signals or time.",
    "drain": "Its process begins to leave.",
    "give_back": "Its process leaves it to whoever comes.",
    "release": "A person lets it go on. It is taken for that, and given back.",
    "suspend": "Somebody stops it.",
    "reach_limit": "It has made all its steps.",
    "quarantine": "It was taken up in vain too often, or broke a contract.",
    "complete": "It comes to its end.",
    "fail": "It fails.",
    "cancel": "Somebody ends it.",
}
BARRIER_STATUSES = {
    "open": "It takes decisions.",
    "decided": "Enough votes are in; the run has not read them yet.",
    "resolved": "A checkpoint used them.",
    "withdrawn": "Its scope was closed, its deadline failed it, or its run ended: nobody decided.",
}


EFFECT_STATUSES = {
    "started": "It is being carried out by a living process.",
    "done": "Its outcome is known; it is not carried out again.",
    "not_done": "It raised, or a person says that it did not happen; it may be carried out again.",
    "in_doubt": "It was started and nobody knows whether it happened; a person settles it (`trailmark runs resolve-effect`).",
}


def statuses() -> str:
    """What runs, tickets and side effects can be."""
    parts = ["# Statuses", "", MADE, "", "## Of a run", "", "| status | means | what moves it on |", "|---|---|---|"]
    parts += [f"| `{status}` | {means} | {then} |" for status, (means, then) in STATUSES.items()]
    parts += [
        "",
        "What can happen to a run as a whole, and in which status. Anything else is refused with `IllegalTransitionError`, and nothing changes.",
        "",
    ]
    parts += ["| event | means | from | to |", "|---|---|---|---|"]
    for event, meaning in EVENTS.items():
        possible = ", ".join(f"`{status}`" for status, events in EVENTS_IN.items() if event in events)
        parts.append(f"| `{event}` | {meaning} | {possible} | `{LEADS_TO[event]}` |")
    arrows = [f"    {status} --> {LEADS_TO[event]}: {event}" for status, events in EVENTS_IN.items() for event in events]
    ends = [f"    {status} --> [*]" for status, events in EVENTS_IN.items() if not events]
    parts += ["", "```mermaid", "stateDiagram-v2", "    [*] --> created: submit", "    [*] --> running: start"]
    parts += ["    [*] --> suspended: fork", *arrows, *ends, "```", ""]
    parts += ["## Of a ticket", "", "| status | means |", "|---|---|"]
    parts += [f"| `{status}` | {means} |" for status, means in BARRIER_STATUSES.items()]
    parts += ["", "## Of a side effect", "", "| status | means |", "|---|---|"]
    parts += [f"| `{status}` | {means} |" for status, means in EFFECT_STATUSES.items()]
    return "\n".join(parts)


KINDS = {
    "start": "The run was created; holds its input.",
    "fork": "The run was forked; holds its parent's state at that point.",
    "attempt": "A process took the run.",
    "migration": "The run went over to another version of its flow; holds its whole state in the new names.",
    "step": "A node's body came back.",
    "parallel": "A parallel node opened its branches.",
    "map": "A map node is open: its items begin one by one, as there is room.",
    "subflow": "A subflow node is open: its flow begins.",
    "wait": "A scope waits for a signal or a time.",
    "signal": "The signal a wait node waited for came; its scope goes on.",
    "timer": "The time a timer or wait node waited for came; its scope goes on.",
    "heard": "What a node's body waited for came, or its time was over; the body runs again.",
    "begin": "The first checkpoint of a flow with a state of its own: what its state class adds to what it was lent.",
    "join": "The branches are over and merged.",
    "barrier": "A ticket was opened.",
    "reminded": "Nobody had decided a ticket for so long that people are reminded of it.",
    "escalated": "Nobody had decided a ticket for so long that others may decide it, too.",
    "decision": "A decision was used.",
    "decision_refused": "A decision did not fit the state's own rules; the ticket is open again.",
    "retry": "An attempt of a node failed and will be tried again.",
    "fallback": "A node failed and its fallback edge was taken.",
    "failure": "A node failed for good: its branch, or the run, has failed.",
    "limit": "The step limit was reached.",
    "edit": "An operator wrote other values; holds who and why.",
    "suspended": "The run was suspended, or a side effect is in doubt.",
    "cancelled": "The run was cancelled.",
    "quarantined": "The run was put where no worker takes it: whoever drove it died, again and again.",
    "released": "A person let a quarantined or suspended run go on.",
}


def rows() -> str:
    """Kinds of checkpoints, their columns, and the words of their payload."""
    parts = ["# Checkpoints", "", MADE, "", "What a run is made of; [why](../explain/the-fold.md).", ""]
    parts += ["## Kinds", "", "| kind | what happened |", "|---|---|", *(f"| `{kind}` | {text} |" for kind, text in KINDS.items()), ""]
    parts += ["## Columns", "", "| column | type | |", "|---|---|---|"]
    parts += [f"| `{name}` | `{annotation}` | {meaning} |" for name, annotation, meaning in fields_of(records.Row)]
    text = inspect.cleandoc(ops.__doc__ or "").split("\n\n", 1)[1]
    parts += ["", "## Ops", "", "The payload is a list of ops.", "", re.sub(r"::\n", ":\n", text).replace("``", "`")]
    return "\n".join(parts)


# --- settings.md ------------------------------------------------------------------------------------------------------


def settings() -> str:
    """What can be set, and what it is when nobody sets it."""
    from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
    from trailmark.worker import Worker

    flow = trailmark.Flow
    shown: list[tuple[str, Callable[..., Any], str | None]] = [
        ("SQLCheckpointStore", SQLCheckpointStore, SQLCheckpointStore.__doc__),
        ("MemoryCheckpointStore", MemoryCheckpointStore, MemoryCheckpointStore.__doc__),
        ("GraphExecutor", trailmark.GraphExecutor, trailmark.GraphExecutor.__doc__),
        ("Worker", Worker, Worker.__doc__),
        ("GraphExecutor.resume", trailmark.GraphExecutor.resume, trailmark.GraphExecutor.resume.__doc__),
        ("Flow.add_node", flow.add_node, flow.add_node.__doc__),
        ("Flow.add_parallel", flow.add_parallel, flow.add_parallel.__doc__),
        ("Flow.add_barrier", flow.add_barrier, flow.add_barrier.__doc__),
        ("Flow.add_edge", flow.add_edge, flow.add_edge.__doc__),
        ("Flow.add_fallback", flow.add_fallback, flow.add_fallback.__doc__),
        ("Retry", trailmark.Retry, None),
        ("Timeout", trailmark.Timeout, None),
        ("CircuitBreaker", trailmark.CircuitBreaker, None),
        ("RateLimit", trailmark.RateLimit, None),
        ("Bulkhead", trailmark.Bulkhead, None),
        ("Backpressure", trailmark.Backpressure, None),
    ]
    parts = [
        "# Settings", "", MADE, "",
        "What is set is set where it is used; nothing is read from the environment but",
        "[three variables](cli.md#environment-variables), by the command line. Whoever wants everything in one place, or in a file of their own, has",
        "`trailmark.Settings`: one pydantic model whose parts are `store`, `executor` and `worker`, with the values below:",
        "",
        "```python",
        "settings = Settings.model_validate(tomllib.loads(text))",
        "async with settings.store.store() as store:",
        "    await settings.worker.worker(flows, store=store).run()",
        "```",
    ]  # fmt: skip
    for name, called, text in shown:
        meanings = _meanings(text) or {field: meaning for field, _annotation, meaning in fields_of(typing.cast("type", called))}
        parts += ["", f"## {name}", "", "| setting | default | |", "|---|---|---|"]
        for parameter in inspect.signature(called).parameters.values():
            if parameter.name in ("self", "args", "options"):
                continue
            default = "required" if parameter.default is parameter.empty else f"`{_readable(parameter.default)}`"
            parts.append(f"| `{parameter.name}` | {default} | {_code(meanings.get(parameter.name, ''))} |")
    return "\n".join(parts)


def _readable(value: Any) -> str:
    if inspect.isfunction(value):
        return value.__name__
    text = re.sub(r"<class '(?:builtins\.)?(\w+)'>", r"\1", repr(value))
    return text.replace("datetime.timedelta", "timedelta")


def _meanings(text: str | None) -> dict[str, str]:
    """What the Args section of a docstring says, by argument."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", inspect.cleandoc(text or "") + "\n", re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in (section[1] if section else "").splitlines():
        if entry := re.match(r"^    (\w+): (.*)", line):
            name = entry[1]
            found[name] = entry[2]
        elif line.strip() and name:
            found[name] += " " + line.strip()
    return found


# --- all of them ------------------------------------------------------------------------------------------------------

PAGES: dict[str, Callable[[], str]] = {
    "api.md": api,
    "cli.md": reference,
    "errors.md": errors,
    "rows.md": rows,
    "schema.md": schema,
    "settings.md": settings,
    "statuses.md": statuses,
}
"""Pages of ``docs/reference``, each with the function that writes it."""


def page(name: str) -> str:
    """The text of a page as it should stand in its file."""
    return re.sub(r"[ \t]+$", "", PAGES[name](), flags=re.MULTILINE).rstrip() + "\n"


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name in PAGES:
        (FOLDER / name).write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    main()
