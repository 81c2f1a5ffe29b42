"""The slow road of the codec: values that JSON has no word for.

Such a value becomes ``{"$": tag, "v": ...}``; a dict that has the key "$"
itself, or a key that is no str, becomes a tagged list of pairs.  `tag` refuses
what is no data; `untag` calls nothing but the constructors of the standard
library's own value types.

Law: ``untag(loads(dumps(tag(x)))) == x``, with the same types at every level,
where x holds no registered class; their instances come back as placeholders.
"""

from __future__ import annotations

import itertools
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import isfinite
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from checkpoint_stores.errors import CodecError, UnserialisableError
from checkpoint_stores.ops import VALUE_OPS, Op
from checkpoint_stores.registered import EnumData, ModelData, TypeRegistry, UnknownFieldError
from checkpoint_stores.storable import why_not

_LEAST: Final = -(2**63)
_GREATEST: Final = 2**64 - 1
"""What orjson can write as an integer."""
_TOO_DEEP: Final = "it is nested deeper than can be stored"
_FLATTEN: Final = "store its parts in a flat list or dict, and let them name one another by key"
_CYCLE: Final = "it contains itself"


class _Refused(Exception):  # noqa: N818 - carries the way back to the root; never leaves this file
    def __init__(self, value: object, reason: str, remedy: str = "") -> None:
        self.value = value
        self.reason = reason
        self.remedy = remedy
        self.steps: list[str] = []
        """The way back, innermost first."""

    def as_error(self) -> UnserialisableError:
        path = "".join(reversed(self.steps))
        return UnserialisableError(path.removeprefix("."), self.value, reason=self.reason, remedy=self.remedy)


def tagged(value: Any, where: str, types: TypeRegistry, room: int) -> Any:
    """Return ``value`` as JSON data with tags, at most ``room`` levels deep.

    Raises:
        UnserialisableError: something in it is no data; its path starts with ``where``.
    """
    try:
        return _Tagger(types, room).tag(value, room)
    except _Refused as refused:
        refused.steps.append(where)
        raise refused.as_error() from None
    except RecursionError:
        raise UnserialisableError(where, value, reason=_TOO_DEEP, remedy=_FLATTEN) from None


def tagged_ops(ops: list[Op], types: TypeRegistry, room: int) -> list[Op]:
    """Return a step's ops as JSON data with tags, each value at most ``room`` levels deep.

    Raises:
        UnserialisableError: something in them is no data; its path starts with the op's key, or with the op's name where
            the op is about no key.
    """
    tag = _Tagger(types, room).tag
    made = []
    for op in ops:
        parts: Op = []
        for place, part in enumerate(op):
            try:
                parts.append(tag(part, room))
            except _Refused as refused:
                refused.steps.append(_op_path(op, place))
                raise refused.as_error() from None
            except RecursionError:
                raise UnserialisableError(_op_path(op, place), part, reason=_TOO_DEEP, remedy=_FLATTEN) from None
        made.append(parts)
    return made


def _op_path(op: Op, place: int) -> str:
    return str(op[1]) if op[0] in VALUE_OPS and place > 1 else f"{op[0]}[{place}]"


class _Tagger:
    """One walk over one value."""

    __slots__ = ("_deepest", "_open", "_types")

    def __init__(self, types: TypeRegistry, deepest: int) -> None:
        self._types = types
        self._deepest = deepest
        self._open: set[int] = set()
        """Identities of the containers on the way from the root; meeting one again is a cycle."""

    def tag(self, value: Any, room: int) -> Any:
        kind = type(value)
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        nest = _NESTS.get(kind)
        if nest is None:
            return self._instance(value, room)
        if id(value) in self._open:
            raise _Refused(value, _CYCLE, _FLATTEN)
        if room <= 0:
            raise _Refused(value, f"it is nested deeper than {self._deepest} levels of JSON", _FLATTEN)
        self._open.add(id(value))
        tagged = nest(self, value, room)
        self._open.discard(id(value))
        return tagged

    def items(self, values: Any, room: int) -> list[Any]:
        made = []
        for index, item in enumerate(values):
            try:
                made.append(self.tag(item, room - 1))
            except _Refused as refused:
                refused.steps.append(f"[{index}]")
                raise
        return made

    def members(self, values: dict[str, Any], room: int) -> dict[str, Any]:
        made = {}
        for key, item in values.items():
            try:
                made[key] = self.tag(item, room - 1)
            except _Refused as refused:
                refused.steps.append(_key_path(key))
                raise
        return made

    def mapping(self, value: dict[Any, Any], room: int) -> Any:
        if "$" not in value and all(type(key) is str and (key.isascii() or _is_unicode(key)) for key in value):
            return self.members(value, room)
        pairs = []
        for key, item in value.items():
            try:
                pairs.append([self.tag(key, room - 3), self.tag(item, room - 3)])
            except _Refused as refused:
                refused.steps.append(_key_path(key))
                raise
        if not _LEAVES.keys() >= set(map(type, value)) and _are_some_alike([key for key, _item in pairs]):
            raise _Refused(value, "two of its keys are the same as data", "keep one of them")
        return {"$": "dict", "v": pairs}

    def several(self, tag: str, values: Any, room: int) -> Any:
        """Sets have no order of their own: the stored one is that of the items' bytes."""
        made = []
        for item in values:
            try:
                made.append(self.tag(item, room - 2))
            except _Refused as refused:
                refused.steps.append("{}")
                raise
        made.sort(key=orjson.dumps)
        if any(one == other for one, other in itertools.pairwise(made)) or (
            not _LEAVES.keys() >= set(map(type, values)) and _are_some_alike(made)
        ):
            raise _Refused(values, "two of its items are the same as data", "keep one of them")
        return {"$": tag, "v": made}

    def model(self, value: ModelData, room: int) -> Any:
        made = {"$": "model", "n": value.name, "v": self.members(value.fields, room - 1)}
        if value.given is not None:
            made["given"] = list(value.given)
        if value.extra is not None:
            made["extra"] = self.tag(value.extra, room - 1)
        if value.private is not None:
            made["private"] = self.tag(value.private, room - 1)
        return made

    def enum(self, value: EnumData, room: int) -> Any:
        try:
            return {"$": "enum", "n": value.name, "v": self.tag(value.value, room - 1)}
        except _Refused as refused:
            refused.steps.append(".value")
            raise

    def _instance(self, value: Any, room: int) -> Any:
        try:
            placeholder = self._types.dismantle(value)
        except UnknownFieldError as unknown:
            remedy = f"declare {unknown.attribute!r} as a field of {type(value).__name__}"
            raise _Refused(value, f"its attribute {unknown.attribute!r} is no field of its class", remedy) from None
        if placeholder is None:
            raise _Refused(value, *why_not(value))
        if id(value) in self._open:
            raise _Refused(value, _CYCLE, _FLATTEN)
        self._open.add(id(value))
        made = self.tag(placeholder, room)
        self._open.discard(id(value))
        return made


def _are_some_alike(made: list[Any]) -> bool:
    """Whether instances that differ as objects (a dataclass without ``__eq__``) are one and the same when they are read back."""
    return len({untag(orjson.loads(orjson.dumps(each))) for each in made}) != len(made)


def _key_path(key: Any) -> str:
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{key!r:.40}]"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same(value: Any) -> Any:
    return value


def _text(value: str) -> Any:
    if value.isascii() or _is_unicode(value):
        return value
    return {"$": "str", "v": b64encode(value.encode("utf-8", "surrogatepass")).decode()}


def _integer(value: int) -> Any:
    # Hex, because Python refuses decimal digits of very long integers.
    return value if _LEAST <= value <= _GREATEST else {"$": "int", "v": hex(value)}


def _float(value: float) -> Any:
    return value if isfinite(value) else {"$": "float", "v": repr(value)}


def _delta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _time(tag: str) -> Callable[[Any], Any]:
    """A named zone is stored with the wall time, any other as its offset; fold tells the second 02:30 of a night from the first."""

    def stored(value: datetime | time) -> Any:
        zone = value.tzinfo
        made: dict[str, Any] = {"$": tag}
        if isinstance(zone, ZoneInfo):
            if zone.key is None:
                raise _Refused(value, "its time zone has no name", "use ZoneInfo(key), or convert it to UTC")
            made["zone"] = zone.key
            made["v"] = value.replace(tzinfo=None).isoformat()
        elif (offset := value.utcoffset()) is not None and offset.microseconds:
            # Python writes such an offset but does not read every one of them back.
            made["offset"] = _delta(offset)
            made["v"] = value.replace(tzinfo=None).isoformat()
        else:
            made["v"] = value.isoformat()
        if value.fold:
            made["fold"] = 1
        return made

    return stored


_LEAVES: Final[dict[type, Callable[[Any], Any]]] = {
    str: _text,
    int: _integer,
    float: _float,
    bool: _same,
    type(None): _same,
    datetime: _time("datetime"),
    date: lambda value: {"$": "date", "v": value.isoformat()},
    time: _time("time"),
    timedelta: lambda value: {"$": "timedelta", "v": _delta(value)},
    Decimal: lambda value: {"$": "decimal", "v": str(value)},
    UUID: lambda value: {"$": "uuid", "v": value.hex},
    bytes: lambda value: {"$": "bytes", "v": b64encode(value).decode()},
}

_NESTS: Final[dict[type, Callable[[_Tagger, Any, int], Any]]] = {
    list: _Tagger.items,
    dict: _Tagger.mapping,
    tuple: lambda tagger, value, room: {"$": "tuple", "v": tagger.items(value, room - 1)},
    set: lambda tagger, value, room: tagger.several("set", value, room),
    frozenset: lambda tagger, value, room: tagger.several("frozenset", value, room),
    ModelData: _Tagger.model,
    EnumData: _Tagger.enum,
}


def untag(value: Any) -> Any:
    """Return what the tags in ``value`` (fresh from the JSON parser, changed in place) stand for.

    Raises:
        CodecError: an unknown tag.  Malformed content raises whatever its constructor does.
    """
    kind = type(value)
    if kind is list:
        for index, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                value[index] = untag(item)
    elif kind is dict:
        if "$" in value:
            return _untagged(value)
        for key, item in value.items():
            if type(item) is dict or type(item) is list:
                value[key] = untag(item)
    return value


def _untagged(mark: dict[str, Any]) -> Any:
    read = _READERS.get(mark["$"])
    if read is None:
        raise CodecError(f"the stored value has the tag {mark['$']!r}, which this version does not know; install a newer trailmark")
    return read(mark)


def _several(kind: type[set[Any] | frozenset[Any]]) -> Callable[[dict[str, Any]], Any]:
    def read(mark: dict[str, Any]) -> Any:
        made = kind(untag(mark["v"]))
        if len(made) != len(mark["v"]):
            raise CodecError("two items of a stored set are the same")
        return made

    return read


def _read_time(kind: type[datetime | time]) -> Callable[[dict[str, Any]], Any]:
    def read(mark: dict[str, Any]) -> Any:
        made: Any = kind.fromisoformat(mark["v"])
        if "zone" in mark:
            made = made.replace(tzinfo=ZoneInfo(mark["zone"]))
        elif "offset" in mark:
            made = made.replace(tzinfo=timezone(timedelta(*mark["offset"])))
        return made.replace(fold=1) if "fold" in mark else made

    return read


def _read_dict(mark: dict[str, Any]) -> dict[Any, Any]:
    made = {untag(key): untag(item) for key, item in mark["v"]}
    if len(made) != len(mark["v"]):
        raise CodecError("two keys of a stored dict are the same")
    return made


def _name_in(mark: dict[str, Any]) -> str:
    name = mark["n"]
    if type(name) is not str:
        raise CodecError(f"a stored {mark['$']} has the name {name!r}")
    return name


def _read_model(mark: dict[str, Any]) -> ModelData:
    given = mark.get("given")
    return ModelData(
        _name_in(mark),
        {name: untag(item) for name, item in mark["v"].items()},
        None if given is None else tuple(given),
        untag(mark.get("extra")),
        untag(mark.get("private")),
    )


_READERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "str": lambda mark: b64decode(mark["v"], validate=True).decode("utf-8", "surrogatepass"),
    "int": lambda mark: int(mark["v"], 16),
    "float": lambda mark: float(mark["v"]),
    "datetime": _read_time(datetime),
    "date": lambda mark: date.fromisoformat(mark["v"]),
    "time": _read_time(time),
    "timedelta": lambda mark: timedelta(*mark["v"]),
    "decimal": lambda mark: Decimal(mark["v"]),
    "uuid": lambda mark: UUID(mark["v"]),
    "bytes": lambda mark: b64decode(mark["v"], validate=True),
    "tuple": lambda mark: tuple(untag(mark["v"])),
    "set": _several(set),
    "frozenset": _several(frozenset),
    "dict": _read_dict,
    "model": _read_model,
    "enum": lambda mark: EnumData(_name_in(mark), untag(mark["v"])),
}
