"""A type in words: what a graph's definition says of the type of a state key.

The words are ours, worked out from the annotation: the same on every Python and with every release of pydantic, so that a hash
they stand in stays the same.  They say what may stand under the key (fields of models and their types, members of enums, values
of a Literal) and not how it is checked: no validators, no bounds, no prose.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import TypeAliasType, is_typeddict

from engine.stored_types import bare


def type_words(annotation: Any) -> str:
    """Return ``annotation`` in words.

    >>> from typing import Literal, Optional
    >>> type_words(Optional[list[int]]), type_words(dict[str, Literal["a", 1]]), type_words(int | str)
    ('list[int] | None', "dict[str, 'a' | 1]", 'int | str')
    >>> class Payment(BaseModel):
    ...     amount: int
    ...     payer: str = ""
    >>> type_words(list[Payment])
    'list[Payment{amount: int, payer: str}]'
    """
    return _words(annotation, ())


def _words(annotation: Any, within: tuple[type, ...]) -> str:
    annotation = bare(annotation)
    if annotation is None or annotation is types.NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, TypeAliasType):
        return _words(annotation.__value__, within)
    if isinstance(annotation, NewType):
        return _words(annotation.__supertype__, within)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], within)
    if origin is Literal:
        return " | ".join(repr(value.value if isinstance(value, Enum) else value) for value in arguments)
    if origin in (Union, types.UnionType):
        # None last, the others as they were written: which of them a value becomes may depend on their order.
        return " | ".join(sorted((_words(each, within) for each in arguments), key=lambda words: words == "None"))
    if origin is not None:
        return f"{_name(origin)}[{', '.join(_words(each, within) for each in arguments)}]"
    if isinstance(annotation, type) and annotation in within:
        return _name(annotation)  # it holds itself; what it is was said before
    fields = _fields(annotation)
    if fields is None:
        return _name(annotation)
    inside = (*within, annotation)
    return f"{_name(annotation)}{{{', '.join(f'{name}: {_words(each, inside)}' for name, each in fields.items())}}}"


def _fields(kind: Any) -> Mapping[str, Any] | None:
    """The parts of a type that has named ones; None of any other."""
    if not isinstance(kind, type) and not is_typeddict(kind):
        return None
    if _is_class_of(kind, BaseModel):
        return {name: field.annotation for name, field in kind.__pydantic_fields__.items()}
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else hints
    if _is_class_of(kind, Enum):
        return {name: Literal[member.value] for name, member in kind.__members__.items()}
    return None


def _is_class_of(kind: Any, above: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, above)


def _name(kind: Any) -> str:
    if isinstance(kind, TypeVar):
        return kind.__name__
    return str(getattr(kind, "__name__", None) or getattr(kind, "_name", None) or kind).rpartition(".")[2]
