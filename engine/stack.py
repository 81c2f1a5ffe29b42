"""From what flows and nodes declare to the order of one node's middleware, and to its snapshot as data.

The rules: a node takes its flow's list; what it declares under the same name replaces the flow's in its place, what is new comes last
(innermost), `without(name)` takes away.  An inner flow does the same with the list of the flow around it.  Then `Retry` goes first,
because each failed attempt is a checkpoint of its own, and `Backpressure` before a shared `Bulkhead`: whoever waits there must hold no
place that those might need whom it waits for.

Pure; knows no loop and no run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from engine.callables import identity_of, is_coroutine
from engine.declared import Task
from engine.middleware import Backpressure, Bulkhead, CircuitBreaker, RateLimit, Timeout, Without, name_of_middleware
from engine.option_checks import at_least_one, retry_settings, span
from engine.plan import Retry
from engine.resolve import Scope

BUILT_IN: Final = (Retry, Timeout, CircuitBreaker, RateLimit, Bulkhead, Backpressure)


def merged(outer: Sequence[Any], own: Iterable[Any]) -> tuple[Any, ...]:
    """The list ``outer``, as a flow or node inside changes it by ``own``.

    >>> from datetime import timedelta
    >>> from engine.middleware import without
    >>> merged([Bulkhead(9), RateLimit(1, timedelta(1))], [Bulkhead(2), without("rate_limit"), Timeout(timedelta(3))])
    (Bulkhead(limit=2, waiting=None, shared=False, name='bulkhead'), Timeout(after=datetime.timedelta(days=3), name='timeout'))
    """
    made = {name_of_middleware(each): each for each in outer}
    for each in own:
        if isinstance(each, Without):
            made.pop(each.name, None)
        else:
            made[name_of_middleware(each)] = each
    return tuple(made.values())


def stack_of(around: Sequence[Any], task: Task) -> tuple[Any, ...]:
    """The middleware of one node, outermost first; ``around`` is its flow's list."""
    found = merged(around, own_of(task))
    first_shared = next((index for index, each in enumerate(found) if isinstance(each, Bulkhead) and each.shared), len(found))

    def place(indexed: tuple[int, Any]) -> float:
        index, each = indexed
        if isinstance(each, Retry):
            return -1
        return min(index, first_shared - 0.5) if isinstance(each, Backpressure) else index

    return tuple(each for _, each in sorted(enumerate(found), key=place))


def own_of(task: Task) -> tuple[Any, ...]:
    """What a node itself declares; ``retry=`` and ``timeout=`` are middleware, too."""
    options = [] if task.retry is None else [task.retry]
    return (*options, *([] if task.timeout is None else [Timeout(task.timeout)]), *task.middleware)


def stacks_in(scope: Scope, outer: Sequence[Any] = ()) -> Iterator[tuple[Scope, tuple[Any, ...]]]:
    """Every flow and branch, outermost first, with the list its nodes start from."""
    around = merged(outer, scope.declaration.middleware)
    yield scope, around
    for branches in scope.branches.values():
        for branch in branches:
            yield from stacks_in(branch.scope, around)


# --- as data ----------------------------------------------------------------------------------------------------------


def snapshot(middleware: Any) -> dict[str, Any]:
    """One middleware as data: ``name``, ``kind`` and its settings; times in seconds, error classes by name.

    >>> from datetime import timedelta
    >>> snapshot(RateLimit(10, timedelta(seconds=1)))
    {'name': 'rate_limit', 'kind': 'rate_limit', 'calls': 10, 'per': 1.0, 'shared': False}
    """
    said = {"name": name_of_middleware(middleware)}
    match middleware:
        case Retry():
            return {**said, "kind": "retry", **retry_as_data(middleware)}
        case Timeout(after=after):
            return {**said, "kind": "timeout", "timeout": after.total_seconds()}
        case CircuitBreaker(failures=failures, open_for=open_for, trials=trials, on=on, shared=shared):
            settings = {"failures": failures, "open_for": open_for.total_seconds(), "trials": trials}
            return {**said, "kind": "circuit_breaker", **settings, "on": [error.__name__ for error in on], "shared": shared}
        case RateLimit(calls=calls, per=per, shared=shared):
            return {**said, "kind": "rate_limit", "calls": calls, "per": per.total_seconds(), "shared": shared}
        case Bulkhead(limit=limit, waiting=waiting, shared=shared):
            return {**said, "kind": "bulkhead", "limit": limit, "waiting": waiting, "shared": shared}
        case Backpressure(behind=behind, high=high, resumes_at=low):
            return {**said, "kind": "backpressure", "behind": behind, "high": high, "low": low}
        case _:
            version, settings = str(getattr(middleware, "version", "")), dict(getattr(middleware, "settings", {}))
            return {**said, "kind": "own", "callable": identity_of(middleware), "version": version, "settings": settings}


def retry_as_data(retry: Retry) -> dict[str, Any]:
    """The settings of a Retry."""
    return {
        "attempts": retry.attempts,
        "first": retry.first.total_seconds(),
        "factor": retry.factor,
        "longest": retry.longest.total_seconds(),
        "jitter": retry.jitter,
        "on": [error.__name__ for error in retry.on],
    }


# --- what can be wrong ------------------------------------------------------------------------------------------------


def stack_problems(root: Scope) -> Iterator[str]:
    """Everything that is wrong with the middleware of a flow, its nodes and its branches."""
    for scope, around in stacks_in(root):
        yield from (scope.place + problem for problem in _problems(scope, around))


def _problems(scope: Scope, around: tuple[Any, ...]) -> Iterator[str]:
    name = scope.declaration.name
    yield from _list_problems(f"flow {name!r}", scope.declaration.middleware)
    waits: dict[str, list[str]] = {}
    for node in scope.nodes.values():
        if not isinstance(node, Task):
            continue
        where = f"node {node.name!r}"
        yield from _list_problems(where, own_of(node), judged=node.middleware)
        known = [name_of_middleware(each) for each in around]
        for each in node.middleware:
            if isinstance(each, Without) and each.name not in known:
                yield f"{where}: without({each.name!r}), but the flow has no such middleware; it has: {', '.join(known) or 'none'}"
        stack = stack_of(around, node)
        if sum(isinstance(each, Bulkhead) and each.shared for each in stack) > 1:
            yield f"{where} has two shared bulkheads; nodes that wait for one another's places could wait for ever: keep one"
        for each in stack:
            if isinstance(each, Backpressure):
                if not isinstance(scope.nodes.get(each.behind), Task):
                    yield f"{where}: middleware {each.name!r} looks behind to {each.behind!r}, which is no task of flow {name!r}"
                waits.setdefault(node.name, []).append(each.behind)
    for first, seen in waits.items():
        if first in _behind(first, waits):
            yield f"node {first!r} would wait for itself: its backpressure looks behind to {', '.join(seen)}; leave it out (without(...))"


def _behind(first: str, waits: dict[str, list[str]]) -> set[str]:
    """Every node that ``first`` waits for, by way of others or not."""
    found: set[str] = set()
    todo = list(waits[first])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += waits.get(name, ())
    return found


def _list_problems(where: str, own: Sequence[Any], judged: Sequence[Any] | None = None) -> Iterator[str]:
    for name, count in Counter(name_of_middleware(each) for each in own).items():
        if count > 1:
            yield f"{where} declares middleware {name!r} {count} times; give each a name of its own"
    for each in own if judged is None else judged:
        yield from _settings(f"{where}: middleware {name_of_middleware(each)!r}", each)


def _settings(where: str, each: Any) -> Iterator[str]:
    if not isinstance(each, Without) and not (isinstance(name_of_middleware(each), str) and name_of_middleware(each).strip()):
        yield f"{where}: {each!r} has no name; give it a name attribute"
    match each:
        case Without():
            return
        case Retry():
            yield from retry_settings(where, each)
        case Timeout(after=after):
            yield from span(where, "after", after) if after is not None else (f"{where}: after={after!r} must be a timedelta",)
        case CircuitBreaker():
            yield from at_least_one(where, "failures", each.failures)
            yield from span(where, "open_for", each.open_for)
            yield from at_least_one(where, "trials", each.trials)
            for error in each.on:
                if not (isinstance(error, type) and issubclass(error, BaseException)):
                    yield f"{where}: on={error!r} is no exception class"
        case RateLimit():
            yield from at_least_one(where, "calls", each.calls)
            yield from span(where, "per", each.per)
        case Bulkhead():
            yield from at_least_one(where, "limit", each.limit)
            if each.waiting != 0:
                yield from at_least_one(where, "waiting", each.waiting)
        case Backpressure():
            yield from at_least_one(where, "high", each.high)
            if isinstance(each.high, int) and each.low is not None and not 0 <= each.low < each.high:
                yield f"{where}: low={each.low!r} must be from 0 to less than high={each.high}"
        case _:
            if isinstance(each, type) or not is_coroutine(getattr(each, "around", None)):
                yield f"{where}: {each!r} is no middleware; give an object with a name and `async def around(self, call, node)`"
