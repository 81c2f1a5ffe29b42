"""What cannot be stored as data, and what to write instead: one table for values (the codec) and for types (a flow's state).

Knows classes only: no codec, no state, no flow.
"""

from __future__ import annotations

import array
import collections
import io
import os
import pathlib
import re
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final

INSTEAD_OF_A_FILE: Final = "its path or what it holds, as a str or bytes"
INSTEAD_OF_A_CALLABLE: Final = "a str: its name, looked up in the node"

_INSTEAD: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((os.PathLike, pathlib.PurePath), "a str: str(path)"),
    ((io.IOBase,), INSTEAD_OF_A_FILE),
    ((collections.deque, array.array), "a list: list(value)"),
    ((range,), "a list: list(value)"),
    ((bytearray, memoryview), "bytes: bytes(value)"),
    ((complex,), "a tuple: (value.real, value.imag)"),
    ((re.Pattern,), "a str: value.pattern"),
    ((Awaitable,), "what it gives: await it in the node"),
    ((Generator, Iterator), "a list: list(value)"),
    ((type,), "a str: its name"),
    ((types.FunctionType, types.BuiltinFunctionType, types.MethodType), INSTEAD_OF_A_CALLABLE),
    ((types.ModuleType,), "a str: its name"),
    ((BaseException,), "a str: str(error), or a dict of what it says"),
)
"""First match wins.  Values of these classes, and of classes below them, are never data."""

_PLAIN: Final = (str, bytes, bool, int, float, dict, list, tuple, set, frozenset, Decimal, datetime, date)

REGISTER: Final = "return plain data, or register its class with trailmark.register_type"
_DECLARE: Final = "return plain data, or make its class a dataclass or a pydantic model and register that with trailmark.register_type"


def instead_of(cls: type) -> str:
    """What a state holds instead of instances of ``cls``; "" where the table knows nothing of it.

    >>> instead_of(pathlib.Path), instead_of(str)
    ('a str: str(path)', '')
    """
    if cls in _PLAIN or cls is object:
        return ""
    return next((instead for kinds, instead in _INSTEAD if issubclass(cls, kinds)), "")


def why_not(value: Any) -> tuple[str, str]:
    """Why a value whose class is not registered cannot be stored ("" where there is nothing to add), and what to do instead."""
    cls = type(value)
    if isinstance(value, Enum):
        return "its enum is not registered", REGISTER
    instead = instead_of(cls)
    if instead:
        return "", f"return {instead}"
    for plain in _PLAIN:
        if isinstance(value, plain):
            return f"it is a subclass of {plain.__name__} and would lose its type", f"convert it with {plain.__name__}(...)"
    if hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__pydantic_root_model__"):
        return "", REGISTER
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return "", "return its name as a str, and look it up in the node"
    return "", _DECLARE
