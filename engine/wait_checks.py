"""What can be wrong with timer and wait nodes, and with the signals a flow declares.

Part of `engine.validate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import TypeAdapter

from engine.declared import Timer, Wait
from engine.option_checks import span, undeclared_keys
from engine.resolve import Scope

_ON_TIMEOUT: Final = ("fail", "continue")


def timers(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if isinstance(node, Timer):
            where = f"node {node.name!r}"
            if node.key is None and node.delay is None:
                yield f"{where}: give a timedelta, or the state key that holds one"
            yield from span(where, "delay", node.delay, zero=True)
            yield from undeclared_keys(scope, f"{where}: delay", [node.key] if node.key is not None else [])


def waits(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if not isinstance(node, Wait):
            continue
        where = f"node {node.name!r}"
        yield from span(where, "timeout", node.timeout)
        yield from undeclared_keys(scope, f"{where}: to", [node.to] if node.to is not None else [])
        if node.on_timeout not in _ON_TIMEOUT:
            yield f"{where}: on_timeout={node.on_timeout!r} is none of {', '.join(_ON_TIMEOUT)}"


def signals(scope: Scope) -> Iterator[str]:
    """The events of a whole flow: asked of the outermost scope only."""
    if scope.place:
        return
    known: dict[str, Any] = {}
    for inner in scope.all():
        for event, kind in inner.declaration.signals:
            where = f"{inner.place}signal {event!r}"
            if not isinstance(event, str) or not event.strip() or any(mark in event for mark in ".#[]"):
                yield f"{where}: an event is named by a text without . # [ ]"
                continue
            if kind is not Any:
                yield from _type(where, kind)
                if known.setdefault(event, kind) != kind:
                    yield f"{where} is declared with the type {_named(kind)} and with {_named(known[event])}; declare one"


def _type(where: str, kind: Any) -> Iterator[str]:
    try:
        TypeAdapter(kind).json_schema()
    except Exception as error:  # noqa: BLE001 - pydantic has several; the author reads why
        yield f"{where}: its type {_named(kind)} cannot be checked: {error}"


def _named(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
