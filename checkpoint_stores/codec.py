"""Values to bytes and back: versioned JSON that holds data, never code.

The first byte says how the rest is read: ``1`` is JSON that means itself, ``2``
is JSON with tags (see checkpoint_stores.tags).  A new form will get a new byte,
and the old ones stay readable.  Loading imports nothing, calls no code of a
user and no constructor but those of the standard library's value types.

`pack` is on the path of every step: what is plain JSON already, which is
nearly everything, is copied and written without looking at single scalars.
Knows no database, no graph and no meaning of an op.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from math import isfinite
from typing import Any, Final
from uuid import UUID

import orjson

from checkpoint_stores.errors import CodecError
from checkpoint_stores.ops import Op
from checkpoint_stores.registered import TYPES, EnumData, ModelData, TypeRegistry, register_type
from checkpoint_stores.tags import tagged, tagged_ops, untag

__all__ = [
    "TYPES",
    "EnumData",
    "ModelData",
    "TypeRegistry",
    "decode",
    "encode",
    "materialise",
    "pack",
    "register_type",
    "revive",
    "to_json",
    "unpack",
]

PLAIN: Final = b"1"
TAGGED: Final = b"2"

PACK_DEPTH: Final = 100
"""How deep the JSON of one op's value may nest.  Less than ENCODE_DEPTH, so that a snapshot can always hold what a step could."""
ENCODE_DEPTH: Final = 150
"""Well within the 254 levels orjson writes, and within Python's stack when read back from deep inside an application."""

_EXACT: Final = frozenset({str, int, bool, type(None)})
"""Scalars that JSON keeps as they are, or that orjson refuses (integers beyond 64 bit, lone surrogates)."""
_SCALARS: Final = _EXACT | {float}
_FLOAT: Final = frozenset({float})
_IMMUTABLE: Final = _SCALARS | {bytes, Decimal, UUID, datetime, date, time, timedelta}
"""Types whose values can be shared."""

_dumps = orjson.dumps
_loads = orjson.loads


def pack(ops: list[Op], types: TypeRegistry = TYPES) -> tuple[bytes, list[Op]]:
    """Return the bytes of a step's ops, and the ops as a later `unpack` of those bytes gives them.

    The returned ops share no container with ``ops``.

    >>> pack([["set", "total", (1, 2)]])
    (b'2[["set","total",{"$":"tuple","v":[1,2]}]]', [['set', 'total', (1, 2)]])

    Raises:
        UnserialisableError: a value is no data; its path starts with the op's key, e.g. ``items[3].fh``.
    """
    plain: list[Op] = []
    for op in ops:
        if _EXACT.issuperset(map(type, op)):
            plain.append(op.copy())
            continue
        copies = []
        for part in op:
            if type(part) in _EXACT:
                copies.append(part)
                continue
            copy = _plain(part, PACK_DEPTH)
            if copy is None:
                return _pack_tagged(ops, types)
            copies.append(copy)
        plain.append(copies)
    try:
        return PLAIN + _dumps(plain), plain
    except TypeError:  # a key that is no str, a long integer, a lone surrogate
        return _pack_tagged(ops, types)


def unpack(raw: bytes) -> list[Op]:
    """Return the ops that `pack` wrote.

    Raises:
        CodecError: the bytes are damaged, or were written by a newer trailmark.
    """
    ops = decode(raw)
    if type(ops) is not list:
        raise CodecError(f"the stored payload is a {type(ops).__name__}, not a list of ops")
    return ops


def encode(value: Any, where: str = "", types: TypeRegistry = TYPES) -> bytes:
    """Return ``value`` as bytes.

    >>> encode({"vendor": "ACME", "amount": 9000})
    b'1{"vendor":"ACME","amount":9000}'

    Raises:
        UnserialisableError: something in it is no data; its path starts with ``where``.
    """
    plain = _plain(value, ENCODE_DEPTH)
    if plain is not None or value is None:
        try:
            return PLAIN + _dumps(plain)
        except TypeError:  # a key that is no str, a long integer, a lone surrogate
            pass
    return TAGGED + _dumps(tagged(value, where, types, ENCODE_DEPTH))


def decode(raw: bytes) -> Any:
    """Return the value that `encode` wrote; instances of registered classes as placeholders.

    >>> decode(b'1[1.5,null]')
    [1.5, None]

    Raises:
        CodecError: the bytes are damaged, or were written by a newer trailmark.
    """
    form = raw[:1]
    try:
        if form == PLAIN:
            return _loads(raw[1:])
        if form == TAGGED:
            return untag(_loads(raw[1:]))
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as damaged:
        raise CodecError(f"the stored value cannot be read: {type(damaged).__name__}: {damaged}") from damaged
    raise CodecError(f"the stored value has the form {form!r}, which this version does not know; install a newer trailmark")


def materialise(value: Any, types: TypeRegistry = TYPES) -> Any:
    """Return a deep, independent copy of a decoded value, its placeholders revived: what a node may hold and change.

    No validator and no ``__init__`` runs; a placeholder whose name is not registered stays one.

    Raises:
        CodecError: a registered class has changed and no longer fits the stored value, or ``value`` is not decoded data.
    """
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is list:
        copy = value.copy()
        if not _IMMUTABLE.issuperset(map(type, value)):
            for index, item in enumerate(copy):
                if type(item) not in _IMMUTABLE:
                    copy[index] = materialise(item, types)
        return copy
    if kind is dict:
        if not _IMMUTABLE.issuperset(map(type, value)):
            return {materialise(key, types): materialise(item, types) for key, item in value.items()}
        copy = value.copy()
        for key, item in copy.items():
            if type(item) not in _IMMUTABLE:
                copy[key] = materialise(item, types)
        return copy
    if kind is tuple or kind is frozenset:
        return value if _IMMUTABLE.issuperset(map(type, value)) else kind(materialise(item, types) for item in value)
    if kind is set:
        return {materialise(item, types) for item in value}
    if kind is EnumData:
        return types.build(EnumData(value.name, materialise(value.value, types)))
    if kind is ModelData:
        fields, extra, private = (materialise(part, types) for part in (value.fields, value.extra, value.private))
        return types.build(ModelData(value.name, fields, value.given, extra, private))
    raise CodecError(f"a {kind.__name__} is not decoded data")


def revive(value: Any, types: TypeRegistry = TYPES) -> Any:
    """The same as `materialise`."""
    return materialise(value, types)


def to_json(value: Any, *, not_finite: Callable[[float], Any] = repr) -> Any:
    """Return ``value`` as something JSON can show to a person.  Readable, not reversible.

    JSON has no NaN and no infinity: ``not_finite`` says what to show for one (its name as a text).

    >>> to_json({"when": date(2024, 2, 29), "sizes": (1, 2), 3: {Decimal("1.50")}})
    {'when': '2024-02-29', 'sizes': [1, 2], '3': ['1.50']}
    """
    kind = type(value)
    if kind is str:
        return value.encode("utf-8", "backslashreplace").decode()
    if kind is float:
        return value if isfinite(value) else not_finite(value)
    if kind is int:
        return value if -(2**63) <= value < 2**64 else hex(value)
    if value is None or kind is bool:
        return value
    if kind is bytes:
        return b64encode(value).decode()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    shown = partial(to_json, not_finite=not_finite)
    if isinstance(value, dict):
        return {to_json(str(to_json(key))): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((shown(item) for item in value), key=_dumps)
    if isinstance(value, (EnumData, Enum)):
        return shown(value.value)
    if isinstance(value, ModelData):
        return shown({**value.fields, **(value.extra or {})})
    placeholder = TYPES.dismantle(value)
    return shown(str(value) if placeholder is None else placeholder)


def _plain(value: Any, room: int) -> Any:
    """Return a copy of a value that is JSON already; None where it is not (or is None).

    A type that merely equals a JSON type (IntEnum, a str's subclass, a tuple) is not plain.  What the copy cannot tell,
    orjson refuses when it writes it.
    """
    kind = type(value)
    if kind is list:
        if _EXACT.issuperset(map(type, value)):
            return value.copy()
        if _FLOAT.issuperset(map(type, value)):
            # A sum is finite only if every part is; where it merely overflows, the tags do the same work more slowly.
            return value.copy() if isfinite(sum(value)) else None
        copy = value.copy()
        return _plain_parts(copy, enumerate(copy), room - 1)
    if kind is dict:
        fields = value.copy()
        return fields if _EXACT.issuperset(map(type, fields.values())) else _plain_parts(fields, fields.items(), room - 1)
    if kind in _EXACT or (kind is float and isfinite(value)):
        return value
    return None


def _plain_parts(made: Any, parts: Iterable[tuple[Any, Any]], room: int) -> Any:
    """Put copies of the inner containers into ``made``, a shallow copy; return it, or None where a part is not plain.

    ``parts`` are those of ``made`` itself: replacing a value under its key does not disturb the iteration.
    """
    for place, part in parts:
        kind = type(part)
        if kind in _EXACT:
            continue
        if kind is float:
            if not isfinite(part):
                return None
            continue
        copy = _plain(part, room) if room > 0 else None
        if copy is None:
            return None
        made[place] = copy
    return made


def _pack_tagged(ops: list[Op], types: TypeRegistry) -> tuple[bytes, list[Op]]:
    raw = TAGGED + _dumps(tagged_ops(ops, types, PACK_DEPTH))
    return raw, unpack(raw)
