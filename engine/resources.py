"""What a run needs opened beside the store: connections, clients, models.

A flow names what it needs; whoever drives it has, or is given, a function that opens each.  Opened when a run begins to be
driven here, closed when it is no longer, whatever ended it; no part of the graph's hash, and never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import MappingProxyType
from typing import Any, TypeAlias

from checkpoint_stores.errors import ArgumentError
from engine.driving import goes_up
from engine.errors import MissingResourceError, ResourceError
from engine.graph import FlowGraph

Provider: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
"""Called for each run that is driven; what its context manager gives is what nodes get."""


def providers_for(graph: FlowGraph, given: Mapping[str, Provider]) -> Mapping[str, Provider]:
    """What opens each thing that ``graph`` needs: what was given, else what the flow says itself.

    Raises MissingResourceError (nobody opens something), ArgumentError (a provider that cannot be called).
    """
    wrong = next((name for name, provider in given.items() if not callable(provider)), None)
    if wrong is not None:
        raise ArgumentError(
            f"the resource {wrong!r}",
            given[wrong],
            "a function that returns an async context manager, e.g. one made by asynccontextmanager",
        )
    found = {name: given.get(name, own) for name, own in graph.needs.items()}
    missing = [name for name, provider in found.items() if provider is None]
    if missing:
        raise MissingResourceError(graph.name, missing)
    return MappingProxyType({name: provider for name, provider in found.items() if provider is not None})


class Opened:
    """The resources of one run that is driven here."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self._stack = AsyncExitStack()
        self._is_open = False
        self._held: dict[str, Any] = {}
        self.held: Mapping[str, Any] = MappingProxyType(self._held)
        """By name; empty until they are open."""

    async def open(self) -> None:
        """Open all of them, in the order declared; where one cannot be, `close` gives back those that were.  Idempotent.

        Raises ResourceError.
        """
        if self._is_open:
            return
        self._is_open = True
        for name, provider in self._providers.items():
            try:
                self._held[name] = await self._stack.enter_async_context(provider())
            except BaseException as error:
                if goes_up(error):
                    raise
                raise ResourceError(name, error) from error

    async def close(self) -> None:
        """Close all that is open, the newest first.  Raises what closing them raises, after all were tried."""
        self._held.clear()
        await self._stack.aclose()
