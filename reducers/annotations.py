"""Reads which reducer a state key's type names: ``notes: Annotated[list[str], append]``.

Knows types only; the state's class and its fields are read by who asks.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, NotRequired, Required, Union, get_args, get_origin

from reducers.builtin import error
from reducers.errors import ReducerAnnotationError
from reducers.registry import Reducer, names

_TRANSPARENT: Final = (Required, NotRequired, Union, types.UnionType)
"""What may stand around an Annotated without hiding its reducer."""


def reducer_of(annotation: Any, metadata: Iterable[Any] = ()) -> Reducer:
    """Return the reducer that ``annotation`` names; without one `error`.

    ``metadata`` is what was already taken out of the annotation (a pydantic field keeps it apart).

    >>> from reducers.builtin import append
    >>> reducer_of(Annotated[list[str], append])
    <reducer append>
    >>> reducer_of(int)
    <reducer error>

    Raises:
        ReducerAnnotationError: two different reducers stand there, or a bare function that is none.
    """
    found: list[Reducer] = []
    for mark in (*_marks(annotation), *metadata):
        if isinstance(mark, Reducer):
            if mark not in found:
                found.append(mark)
        elif isinstance(mark, (types.FunctionType, types.BuiltinFunctionType, type)):
            _refuse_bare(annotation, mark)
    if len(found) > 1:
        raise ReducerAnnotationError(annotation, f"names several reducers ({', '.join(r.name for r in found)}); keep one")
    return found[0] if found else error


def _marks(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _marks(annotation.__origin__)
        yield from annotation.__metadata__
    elif hasattr(annotation, "__value__"):  # what a ``type`` statement names
        yield from _marks(annotation.__value__)
    elif origin in _TRANSPARENT:
        for part in get_args(annotation):
            yield from _marks(part)


def _refuse_bare(annotation: Any, mark: Any) -> None:
    """A bare function would be ignored, and the key have no reducer although its author named one."""
    name = getattr(mark, "__name__", repr(mark))
    if getattr(builtins, name, None) is mark and name in names():
        raise ReducerAnnotationError(annotation, f"names Python's {name}; use trailmark.reducers.{name}_")
    if not isinstance(mark, type):
        raise ReducerAnnotationError(annotation, f"names the bare function {name}; decorate it with @reducer({name!r})")
