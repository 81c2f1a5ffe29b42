"""Which keys of a state are declared as something that cannot be stored, found before anything runs.

Says only what is certain: where a validator or a class's own pydantic schema may make another value of what was given, nothing is said.
Knows annotations only.
"""

from __future__ import annotations

import collections.abc
import sys
import typing
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from typing_extensions import is_typeddict

from checkpoint_stores.codec import TYPES
from checkpoint_stores.storable import INSTEAD_OF_A_CALLABLE, INSTEAD_OF_A_FILE, instead_of
from engine.schema import StateSchema

_CONTAINERS: Final = frozenset({
    list, tuple, set, frozenset, dict, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Set,
    collections.abc.MutableSet, collections.abc.Mapping, collections.abc.MutableMapping, collections.abc.Collection,
})  # fmt: skip
"""What is stored, or holds what is stored: their items are what counts."""

_SPECIAL: Final[dict[Any, str]] = {
    typing.TextIO: INSTEAD_OF_A_FILE,
    typing.BinaryIO: INSTEAD_OF_A_FILE,
    typing.IO: INSTEAD_OF_A_FILE,
    collections.abc.Callable: INSTEAD_OF_A_CALLABLE,
    collections.abc.Iterable: "a list",  # pydantic makes an iterator of it
}


class Impossible(NamedTuple):
    """A class no state can hold."""

    name: str
    instead: str


def impossible_keys(schema: StateSchema) -> Iterator[tuple[str, Impossible]]:
    """Keys that can never hold anything."""
    for name, spec in schema.keys.items():
        if spec.reducer.builtin and not _is_validated(schema, name) and (found := never_stored(spec.annotation)) is not None:
            yield name, found


def doubtful_keys(schema: StateSchema) -> Iterator[tuple[str, type]]:
    """Keys declared as a class that the codec does not know, as things stand."""
    for name, spec in schema.keys.items():
        if spec.reducer.builtin and not _is_validated(schema, name) and (found := unknown_class(spec.annotation)) is not None:
            yield name, found


def never_stored(annotation: Any) -> Impossible | None:
    """What stands in ``annotation`` that makes every value of it impossible to store; None where some value may be stored.

    >>> from pathlib import Path
    >>> never_stored(dict[str, Path | None])
    Impossible(name='Path', instead='a str: str(path)')
    >>> never_stored(Path | str), never_stored(list[int])
    (None, None)
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return None if any(_transforms(mark) for mark in parts[1:]) else never_stored(parts[0])
    if origin in (Union, UnionType):
        judged = [never_stored(part) for part in parts if part is not NoneType]
        return judged[0] if judged and all(judged) else None
    cls = origin or annotation
    if cls in _CONTAINERS:
        return next((found for part in parts if (found := never_stored(part)) is not None), None)
    if not isinstance(cls, type) or cls in TYPES or hasattr(cls, "__get_pydantic_core_schema__"):
        return None
    instead = _SPECIAL.get(cls) or instead_of(cls)
    return Impossible(cls.__name__, instead) if instead else None


def unknown_class(annotation: Any) -> type | None:
    """A class of somebody's own in ``annotation`` that is not registered, with no registered class below it.

    >>> class Opaque: ...
    >>> unknown_class(list[Opaque]) is Opaque, unknown_class(int)
    (True, None)
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return None if any(_transforms(mark) for mark in parts[1:]) else unknown_class(parts[0])
    cls = origin or annotation
    if origin in (Union, UnionType) or cls in _CONTAINERS:
        return next((found for part in parts if (found := unknown_class(part)) is not None), None)
    if not isinstance(cls, type) or cls.__module__.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return None
    speaks_for_itself = is_typeddict(cls) or hasattr(cls, "__get_pydantic_core_schema__") or never_stored(cls) is not None
    is_abstract = bool(getattr(cls, "__abstractmethods__", None)) or getattr(cls, "_is_protocol", False)
    return None if speaks_for_itself or is_abstract or TYPES.has_below(cls) else cls


def _transforms(mark: Any) -> bool:
    """Whether something in ``Annotated`` may make another value of the one that was given."""
    return hasattr(mark, "__get_pydantic_core_schema__") or type(mark).__name__.endswith("Validator")


def _is_validated(schema: StateSchema, key: str) -> bool:
    if schema.model is None:
        return False
    decorators: Any = schema.model.__pydantic_decorators__
    return any(
        {key, "*"}.intersection(each.info.fields) for each in (*decorators.field_validators.values(), *decorators.validators.values())
    )
