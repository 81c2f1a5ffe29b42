"""What a function looks like from outside: its name, what it takes, whether it is a coroutine function.

Looks at signatures only; never calls anything.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

from engine.plan import Takes

_CONTEXT_NAMES = ("ctx", "context")
_TAKES: tuple[Takes, ...] = ("nothing", "state", "state_context")


def name_of(fn: object) -> str:
    """The name a callable was given by its author; "" for partials and instances, "<lambda>" for lambdas.

    >>> name_of(len), name_of(functools.partial(len))
    ('len', '')
    """
    return str(getattr(fn, "__name__", ""))


def identity_of(fn: object) -> str:
    """How the graph's hash knows a callable: its function's or class's own name, never an import path.

    >>> identity_of(functools.partial(print, 1))
    'print'
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    return name_of(fn) or type(fn).__name__


def is_coroutine(fn: object) -> bool:
    """Whether calling ``fn`` gives something to await."""
    return inspect.iscoroutinefunction(_body(fn))


def is_generator(fn: object) -> bool:
    """Whether calling ``fn`` gives a generator (plain or async), which nothing would run."""
    body = _body(fn)
    return inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)


def is_async_generator(fn: object) -> bool:
    """Whether calling ``fn`` gives an async generator: a node that tells what it makes while it makes it."""
    return inspect.isasyncgenfunction(_body(fn))


def _body(fn: object) -> Any:
    """The function that runs when ``fn`` is called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) or isinstance(fn, type) else getattr(fn, "__call__", fn)  # noqa: B004 - the method itself is wanted


def positional(fn: Callable[..., Any]) -> tuple[int, int] | None:
    """How many positional arguments ``fn`` needs and takes at most; None where it needs keywords or tells nothing.

    >>> positional(lambda state, context=None: None)
    (1, 2)
    """
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = most = 0
    for parameter in parameters:
        optional = parameter.default is not parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            needed += not optional
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most += 2
        elif parameter.kind is parameter.KEYWORD_ONLY and not optional:
            return None
    return needed, most


def node_takes(fn: Callable[..., Any]) -> Takes | None:
    """Whether a node's function is called with (state), (state, context) or (); None where none of them fits.

    A second parameter with a default is the author's own, unless it is named ``ctx`` or ``context``.

    >>> node_takes(lambda state: None), node_takes(lambda state, ctx: None), node_takes(lambda a, b, c: None)
    ('state', 'state_context', None)
    """
    counts = positional(fn)
    if counts is None or counts[0] > 2 or (_name(fn, 0) in _CONTEXT_NAMES and _name(fn, 1) not in _CONTEXT_NAMES):
        return None  # a ctx that stands alone or first would be given the state
    needed, most = counts
    if needed < 2 <= most and _name(fn, 1) in _CONTEXT_NAMES:
        return "state_context"
    return _TAKES[needed or min(most, 1)]


def item_takes(fn: Callable[..., Any]) -> Takes | None:
    """Whether a map's function is called with (item), (item, ctx), (item, state) or (item, state, ctx); None where none of them fits.

    >>> item_takes(lambda document: None), item_takes(lambda document, ctx: None), item_takes(lambda document, state, ctx: None)
    ('item', 'item_context', 'item_state_context')
    """
    counts = positional(fn)
    if counts is None or counts[0] > 3 or counts[1] == 0:
        return None
    needed, most = counts
    if most >= 3 and (needed == 3 or _name(fn, 2) in _CONTEXT_NAMES):
        return "item_state_context"
    if most >= 2 and _name(fn, 1) in _CONTEXT_NAMES:
        return "item_context"
    return "item_state" if needed == 2 or (most >= 2 and _name(fn, 1) == "state") else "item"


def condition_takes(fn: Callable[..., Any]) -> Literal[1, 2] | None:
    """Whether a condition is called with (state) or (state, outcome); None where neither fits."""
    counts = positional(fn)
    if counts is None or not counts[0] <= 2 or counts[1] == 0:
        return None
    if counts[0] == 2 or (counts[1] >= 2 and _name(fn, 1) == "outcome"):
        return 2
    return 1


def _name(fn: Callable[..., Any], position: int) -> str:
    names = [parameter.name for parameter in inspect.signature(fn).parameters.values() if parameter.kind is not parameter.KEYWORD_ONLY]
    return names[position] if len(names) > position else ""
