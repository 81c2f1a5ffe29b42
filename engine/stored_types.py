"""Which classes stand in an annotation: they are registered with the codec, so that their values can be stored and revived.

Knows annotations only; nothing of state, flows or stores beside the codec's registry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, NotRequired, Required, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import ReadOnly, is_typeddict

from checkpoint_stores.codec import register_type


def classes_in(annotation: Any) -> Iterator[type]:
    """Every model, dataclass and enum in ``annotation``, nested ones too, each once.

    >>> from enum import Enum
    >>> Colour = Enum("Colour", "RED BLUE")
    >>> list(classes_in(dict[str, list[Colour | None]]))
    [<enum 'Colour'>]
    """
    seen: set[int] = set()
    waiting = [annotation]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
            waiting += [field.annotation for field in part.__pydantic_fields__.values()]
        elif isinstance(part, type) and dataclasses.is_dataclass(part):
            yield part
            waiting += get_type_hints(part).values()
        elif isinstance(part, type) and issubclass(part, Enum):
            yield part
        elif is_typeddict(part):
            waiting += get_type_hints(part).values()
        if hasattr(part, "__value__"):  # what a ``type`` statement names
            waiting.append(part.__value__)
        elif get_origin(part) is Annotated:
            waiting.append(get_args(part)[0])
        else:
            waiting += get_args(part)


def register_types_in(annotation: Any) -> None:
    """Register every model, dataclass and enum in ``annotation`` under its name.  Raises DuplicateTypeError where two classes want one name."""
    for found in classes_in(annotation):
        register_type(found)


def bare(annotation: Any) -> Any:
    """``annotation`` without Required, NotRequired and ReadOnly around it."""
    while get_origin(annotation) in (Required, NotRequired, ReadOnly):
        annotation = get_args(annotation)[0]
    return annotation


def is_marked_required(annotation: Any) -> bool:
    """Whether the author wrote ``Required[...]``: the input of a mapping state needs that key, and no other."""
    while get_origin(annotation) in (NotRequired, ReadOnly):
        annotation = get_args(annotation)[0]
    return get_origin(annotation) is Required
