"""The codec: what it writes, what it refuses and where, what comes back as a placeholder, and what a node gets."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import math
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator

from checkpoint_stores.codec import (
    ENCODE_DEPTH,
    PACK_DEPTH,
    TYPES,
    EnumData,
    ModelData,
    TypeRegistry,
    decode,
    encode,
    materialise,
    pack,
    register_type,
    to_json,
    unpack,
)
from checkpoint_stores.errors import CodecError, DuplicateTypeError, UnserialisableError


class Color(enum.Enum):
    RED = "red"
    BLUE = (0, 0, 255)


class Level(enum.IntEnum):
    LOW = 1


class Mood(enum.StrEnum):
    GOOD = "good"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Bag(dict[str, Any]):
    pass


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    tags: tuple[str, ...] = ()


@dataclass
class Box:
    items: list[Any] = field(default_factory=list)
    seen: int = field(default=0, init=False)

    @cached_property
    def size(self) -> int:
        return len(self.items)


class Line(BaseModel):
    text: str
    amount: Decimal = Decimal(0)
    mood: Mood = Mood.GOOD
    tags: list[str] = Field(default_factory=list)

    @field_validator("text")
    @classmethod
    def not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("empty")
        return value


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int = 0


class Secretive(BaseModel):
    x: int = 0
    _count: int = PrivateAttr(default=7)


class Names(RootModel[list[str]]):
    pass


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    x: int


@pytest.fixture
def types() -> TypeRegistry:
    registry = TypeRegistry()
    for cls in (Color, Level, Mood, Rights, Point, Box, Line, Open, Secretive, Names, Frozen):
        registry.register(cls)
    return registry


# --- what is written --------------------------------------------------------------------------------------------------


def test_plain_data_is_plain_json_behind_one_byte() -> None:
    raw, decoded = pack([["append", "notes", ["read"]], ["at", "pay"]])
    assert raw == b'1[["append","notes",["read"]],["at","pay"]]'
    assert decoded == [["append", "notes", ["read"]], ["at", "pay"]]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime(2024, 2, 29, 12, tzinfo=UTC), {"$": "datetime", "v": "2024-02-29T12:00:00+00:00"}),
        (datetime(2024, 2, 29, 12), {"$": "datetime", "v": "2024-02-29T12:00:00"}),  # noqa: DTZ001
        (
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            {"$": "datetime", "zone": "Europe/Berlin", "v": "2024-10-27T02:30:00", "fold": 1},
        ),
        (date(2024, 2, 29), {"$": "date", "v": "2024-02-29"}),
        (time(12, 30), {"$": "time", "v": "12:30:00"}),
        (timedelta(days=-1, microseconds=3), {"$": "timedelta", "v": [-1, 0, 3]}),
        (Decimal("1.50"), {"$": "decimal", "v": "1.50"}),
        (UUID(int=3), {"$": "uuid", "v": "00000000000000000000000000000003"}),
        (b"\xff", {"$": "bytes", "v": "/w=="}),
        ((1, "a"), {"$": "tuple", "v": [1, "a"]}),
        ({3, 1, 2}, {"$": "set", "v": [1, 2, 3]}),
        (frozenset({"b", "a"}), {"$": "frozenset", "v": ["a", "b"]}),
        (2**64, {"$": "int", "v": "0x10000000000000000"}),
        (math.inf, {"$": "float", "v": "inf"}),
        ({1: "a"}, {"$": "dict", "v": [[1, "a"]]}),
        ({"$": "set", "v": 3, "x": Decimal(1)}, {"$": "dict", "v": [["$", "set"], ["v", 3], ["x", {"$": "decimal", "v": "1"}]]}),
        ("\ud800", {"$": "str", "v": "7aCA"}),
        (EnumData("Color", "red"), {"$": "enum", "n": "Color", "v": "red"}),
        (ModelData("Point", {"$": 1}), {"$": "model", "n": "Point", "v": {"$": 1}}),
    ],
)
def test_the_form_of_each_tag_is_fixed(value: Any, written: Any) -> None:
    """Stored bytes outlive the code: a change here needs a new first byte."""
    raw = encode(value)
    assert raw[:1] == b"2"
    assert orjson.loads(raw[1:]) == written
    assert decode(raw) == value
    assert type(decode(raw)) is type(value)


def test_a_key_named_like_the_tag_is_just_a_key() -> None:
    value = {"$": "datetime", "v": "never parsed"}
    raw, decoded = pack([["set", "price", value]])
    assert decoded == [["set", "price", value]] == unpack(raw)


@pytest.mark.parametrize("value", [True, 1, 1.0, 0, False, -0.0, 0.0])
def test_equal_scalars_of_different_types_stay_apart(value: Any) -> None:
    for read in (decode(encode(value)), pack([["set", "x", [value]]])[1][0][2][0]):
        assert type(read) is type(value)
        assert math.copysign(1, read) == math.copysign(1, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_survives(value: float) -> None:
    for held in (value, [value], [1.5, value], ["a", value], {"a": value}, [math.inf, -math.inf, value]):
        raw, decoded = pack([["set", "x", held]])
        assert repr(decoded) == repr(unpack(raw)) == repr([["set", "x", held]])
        assert repr(decode(encode(held))) == repr(held)


def test_finite_numbers_whose_sum_is_not_finite_survive() -> None:
    assert decode(encode([1e308] * 3)) == [1e308] * 3


def test_sets_have_one_form_whatever_their_order_in_memory() -> None:
    words = [f"word{number}" for number in range(50)]
    backwards = dict.fromkeys(reversed(words))
    assert encode(set(words)) == encode(set(backwards))


def test_a_huge_integer_needs_no_decimal_digits() -> None:
    value = 7**20_000
    assert value > 10 ** sys.get_int_max_str_digits()
    assert decode(encode(value)) == value


def test_the_second_half_past_two_of_a_night_is_not_the_first() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    second = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=berlin)
    read = decode(encode([second]))[0]
    assert (read.fold, read.tzinfo) == (1, berlin)
    assert read.utcoffset() == timedelta(hours=1)
    naive = decode(encode(datetime(2024, 10, 27, 2, 30, fold=1)))  # noqa: DTZ001
    assert (naive.fold, naive.tzinfo) == (1, None)


def test_an_odd_offset_is_kept() -> None:
    value = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=7, seconds=5, microseconds=9)))
    assert decode(encode(value)).utcoffset() == value.utcoffset()
    tiny = time(12, tzinfo=timezone(timedelta(microseconds=1)))
    assert decode(encode(tiny)).utcoffset() == timedelta(microseconds=1)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (io.BytesIO(), "items"),
        ([1, 2, 3, {"fh": io.BytesIO()}], "items[3].fh"),
        ({"a key": [object()]}, "items['a key'][0]"),
        ({1: {2: object()}}, "items[1][2]"),
        ({(1, object): 1}, "items[(1, <class 'object'>)][1]"),
        ((1, {"x": Path()}), "items[1].x"),
        ({frozenset({Text("a")})}, "items{}{}"),
        ([Decimal(1), {"when": Text("a")}], "items[1].when"),
        (Point(1, tags=(object(),)), "items.tags[0]"),  # type: ignore[arg-type]
        ([Color], "items[0]"),
    ],
)
def test_what_is_no_data_is_refused_with_its_path(value: Any, path: str, types: TypeRegistry) -> None:
    for refused in (lambda: pack([["set", "other", 1], ["set", "items", value]], types), lambda: encode(value, "items", types)):
        with pytest.raises(UnserialisableError) as caught:
            refused()
        assert caught.value.path == path
        assert str(caught.value).startswith((f"{path} is a ", f"{path} is an "))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Text("a"), "convert it with str(...)"),
        (Whole(1), "convert it with int(...)"),
        (Bag(), "convert it with dict(...)"),
        (OrderedDict(), "convert it with dict(...)"),
        (namedtuple("Pair", "a b")(1, 2), "convert it with tuple(...)"),  # noqa: PYI024
        (Color.RED, "its enum is not registered"),
        (Level.LOW, "its enum is not registered"),
        (Mood.GOOD, "its enum is not registered"),
        ({Mood.GOOD: 1}, "its enum is not registered"),
        ({Text("a"): 1}, "convert it with str(...)"),
        (Point(1), "register its class"),
        (bytearray(b"a"), "a bytearray, which cannot be stored"),
    ],
)
def test_what_only_looks_like_data_is_refused_too(value: Any, said: str) -> None:
    """orjson alone would write several of these without a word, and they would come back as something else."""
    for ops in ([["set", "x", value]], [["set", "x", [value]]], [["set", "x", {"y": value}]]):
        with pytest.raises(UnserialisableError) as caught:
            pack(ops, TypeRegistry())
        assert said in str(caught.value)
    with pytest.raises(UnserialisableError):
        encode(value, types=TypeRegistry())


def test_an_op_about_no_key_is_named_itself() -> None:
    with pytest.raises(UnserialisableError) as caught:
        pack([["park", "ok#1", {"payload": {"fh": object()}}]])
    assert caught.value.path == "park[2].payload.fh"


def test_the_raw_updates_of_a_branch_are_named_by_their_key() -> None:
    with pytest.raises(UnserialisableError) as caught:
        pack([["append", "items", [1], [[1, object()]]]])
    assert caught.value.path == "items[0][1]"


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    with pytest.raises(UnserialisableError, match="contains itself") as caught:
        pack([["set", "items", loop]])
    assert caught.value.path == "items[1].again"
    wide: list[Any] = []
    wide.extend([wide, wide, wide])
    with pytest.raises(UnserialisableError, match="contains itself"):
        encode(wide)


def test_a_model_that_contains_itself_is_refused(types: TypeRegistry) -> None:
    box = Box()
    box.items.append(box)
    with pytest.raises(UnserialisableError, match="contains itself"):
        encode(box, "box", types)


def test_the_same_part_twice_is_no_cycle() -> None:
    part = [Decimal(1)]
    assert decode(encode([part, part])) == [part, part]


@pytest.mark.parametrize("leaf", [1, Decimal(1)], ids=["plain", "tagged"])
def test_what_a_step_can_hold_a_snapshot_can_hold(leaf: Any) -> None:
    def nested(levels: int) -> Any:
        value = leaf
        for _ in range(levels):
            value = [value]
        return value

    deepest = nested(PACK_DEPTH)
    _, [[_, _, decoded]] = pack([["set", "x", deepest]])
    assert decoded == deepest
    snapshot = {"state": {"scopes": {"": {"values": {"x": decoded}}}}}
    assert decode(encode(snapshot)) == snapshot
    with pytest.raises(UnserialisableError, match=r"nested deeper than 1[05]0 levels of JSON; store its parts in a flat list or dict"):
        pack([["set", "x", nested(PACK_DEPTH + 1)]])
    with pytest.raises(UnserialisableError, match=r"nested deeper than 1[05]0 levels of JSON; store its parts in a flat list or dict"):
        encode(nested(ENCODE_DEPTH + 1))
    with pytest.raises(UnserialisableError, match=r"nested deeper than 1[05]0 levels of JSON; store its parts in a flat list or dict"):
        encode(nested(100_000))


def test_the_costliest_nesting_stays_within_what_can_be_written() -> None:
    value: Any = 1
    for _ in range((ENCODE_DEPTH - 1) // 3):
        value = {1: value}
    assert decode(encode(value)) == value
    with pytest.raises(UnserialisableError, match=r"nested deeper than 1[05]0 levels of JSON; store its parts in a flat list or dict"):
        encode({1: {1: value}})


def test_two_items_that_are_the_same_as_data_are_refused() -> None:
    with pytest.raises(UnserialisableError, match="two of its items are the same as data"):
        encode({math.nan, float("nan")})


@dataclass(eq=False)
class Seat:
    number: float


class Tone(enum.Enum):
    GREY = [1, 2]  # noqa: RUF012


@pytest.mark.parametrize("alike", [{Seat(1): "a", Seat(1): "b"}, {Seat(1), Seat(1.0)}, frozenset({(Seat(1),), (Seat(1.0),)})])
def test_keys_and_items_that_differ_as_objects_but_not_as_data_are_refused(alike: Any) -> None:
    with TYPES.isolated():
        register_type(Seat)
        with pytest.raises(UnserialisableError, match="are the same as data"):
            pack([["set", "seats", alike]])


def test_keys_that_differ_as_data_are_kept_though_their_class_compares_nothing() -> None:
    with TYPES.isolated():
        register_type(Seat)
        _raw, ops = pack([["set", "seats", {Seat(1): "a", Seat(2): "b"}]])
        assert {seat.number: who for seat, who in materialise(ops[0][2]).items()} == {1: "a", 2: "b"}


def test_a_member_can_be_a_key_whatever_its_value_is() -> None:
    with TYPES.isolated():
        register_type(Tone)
        raw, ops = pack([["set", "tones", {Tone.GREY: {Tone.GREY}}]])
        assert unpack(raw) == ops
        assert materialise(ops[0][2]) == {Tone.GREY: {Tone.GREY}}


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1",
        b"1{",
        b"3[]",
        b"[]",
        b"\x80\x04N.",
        b"2" + b"[" * 2000 + b"]" * 2000,
        b'2{"$":"pickle","v":"gASVAAAA"}',
        b'2{"$":["set"],"v":[]}',
        b'2{"$":"set"}',
        b'2{"$":"set","v":[1,1]}',
        b'2{"$":"set","v":[[1]]}',
        b'2{"$":"dict","v":[[1,2],[1,3]]}',
        b'2{"$":"dict","v":[[1]]}',
        b'2{"$":"decimal","v":"x"}',
        b'2{"$":"datetime","v":"yesterday"}',
        b'2{"$":"datetime","v":"2024-01-01T00:00:00","zone":"Atlantis/Center"}',
        b'2{"$":"datetime","v":"2024-01-01T00:00:00","zone":"../../etc/passwd"}',
        b'2{"$":"bytes","v":"*"}',
        b'2{"$":"uuid","v":3}',
        b'2{"$":"model","n":["x"],"v":{}}',
        b'2{"$":"model","n":"x","v":[]}',
        b'2{"$":"enum","n":3,"v":1}',
    ],
)
def test_damaged_bytes_are_a_codec_error(raw: bytes) -> None:
    with pytest.raises(CodecError):
        decode(raw)


def test_a_payload_that_is_no_list_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match="not a list of ops"):
        unpack(b'1{"a":1}')


# --- registered classes -----------------------------------------------------------------------------------------------

INSTANCES: list[Any] = [
    Color.RED,
    Color.BLUE,
    Level.LOW,
    Mood.GOOD,
    Rights.READ | Rights.WRITE,
    Point(1, 2, ("a",)),
    Box([1, {"a": {1, 2}}]),
    Line(text="a", amount=Decimal("1.5")),
    Line(text="a", tags=["x"]),
    Line.model_construct(text=""),
    Open(x=1, y=[2], **{"$": 3}),
    Secretive(x=3),
    Names(["a", "b"]),
    Frozen(x=1),
]


@pytest.mark.parametrize("instance", INSTANCES, ids=repr)
def test_an_instance_of_a_registered_class_comes_back_the_same(instance: Any, types: TypeRegistry) -> None:
    raw = encode([instance], types=types)
    placeholder = decode(raw)[0]
    assert isinstance(placeholder, (EnumData, ModelData))
    assert placeholder.name == type(instance).__name__
    back = materialise(placeholder, types)
    assert type(back) is type(instance)
    assert back == instance
    if isinstance(instance, BaseModel):
        assert back.model_fields_set == instance.model_fields_set
        assert back.model_dump() == instance.model_dump()
    assert encode([back], types=types) == raw


@pytest.mark.parametrize("instance", INSTANCES, ids=repr)
def test_a_placeholder_is_stored_again_as_the_same_bytes_without_its_class(instance: Any, types: TypeRegistry) -> None:
    raw = encode(instance, types=types)
    nobody = TypeRegistry()
    assert encode(decode(raw), types=nobody) == raw
    kept = materialise(decode(raw), nobody)
    assert kept == decode(raw)
    assert encode(kept, types=nobody) == raw


def test_placeholders_stand_where_frozen_instances_did(types: TypeRegistry) -> None:
    value = {Frozen(x=1): {Frozen(x=2), Frozen(x=3)}, Color.RED: frozenset({Point(1), Color.BLUE}), (Level.LOW,): 1}
    assert materialise(decode(encode(value, types=types)), types) == value


def test_loading_runs_no_code_of_the_class() -> None:
    ran: list[str] = []

    @dataclass
    class Loud:
        x: int

        def __post_init__(self) -> None:
            ran.append("post_init")

        def __setattr__(self, name: str, value: Any) -> None:
            ran.append("setattr")
            super().__setattr__(name, value)

    class LoudModel(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            ran.append("validator")
            return value

        def model_post_init(self, context: Any, /) -> None:
            ran.append("model_post_init")

    registry = TypeRegistry()
    registry.register(Loud)
    registry.register(LoudModel)
    raw = encode([Loud(1), LoudModel(x=1)], types=registry)
    assert len(ran) == 4
    decoded = decode(raw)
    loud, model = materialise(decoded, registry)
    assert len(ran) == 4
    assert (loud.x, model.x) == (1, 1)


def test_a_private_attribute_is_kept(types: TypeRegistry) -> None:
    secretive = Secretive()
    secretive._count = 8
    assert materialise(decode(encode(secretive, types=types)), types)._count == 8


def test_an_attribute_that_is_no_field_is_refused_but_a_cached_property_is_not(types: TypeRegistry) -> None:
    box = Box([1])
    assert box.size == 1
    assert materialise(decode(encode(box, types=types)), types) == box
    box.note = "lost"  # type: ignore[attr-defined]
    with pytest.raises(UnserialisableError, match="'note' is no field"):
        encode(box, types=types)


def test_a_field_added_since_gets_its_default(types: TypeRegistry) -> None:
    assert materialise(ModelData("Point", {"x": 1}), types) == Point(1)
    assert materialise(ModelData("Box", {}), types) == Box()
    assert materialise(ModelData("Line", {"text": "a"}), types) == Line(text="a")
    assert materialise(ModelData("Secretive", {"x": 1}), types)._count == 7


def test_a_field_dropped_since_is_left_out(types: TypeRegistry) -> None:
    line = materialise(ModelData("Line", {"text": "a", "gone": 1}), types)
    assert line == Line(text="a")
    assert line.model_fields_set == {"text"}
    assert materialise(ModelData("Point", {"x": 1, "gone": 1}), types) == Point(1)


@pytest.mark.parametrize(
    ("placeholder", "said"),
    [
        (ModelData("Point", {"y": 1}), "a stored Point lacks the field 'x'"),
        (ModelData("Line", {}), "a stored Line lacks the field 'text'"),
        (EnumData("Color", "green"), "enum Color has no member with the stored value 'green'"),
    ],
)
def test_a_class_that_no_longer_fits_the_stored_value_is_an_error(placeholder: Any, said: str, types: TypeRegistry) -> None:
    with pytest.raises(CodecError, match=said):
        materialise([placeholder], types)


def test_a_name_that_changed_its_kind_stays_a_placeholder(types: TypeRegistry) -> None:
    assert materialise(EnumData("Point", 1), types) == EnumData("Point", 1)
    assert materialise(ModelData("Color", {}), types) == ModelData("Color", {})


def test_the_name_and_not_the_class_is_stored() -> None:
    old, new = TypeRegistry(), TypeRegistry()
    old.register(Point, "Place")
    raw = encode(Point(1), types=old)
    assert b"Point" not in raw
    assert b"test_codec" not in raw

    @dataclass(frozen=True)
    class Location:
        x: int
        y: int
        tags: tuple[str, ...]

    new.register(Location, "Place")
    assert materialise(decode(raw), new) == Location(1, 0, ())


def test_a_name_belongs_to_one_class_and_a_class_has_one_name() -> None:
    registry = TypeRegistry()
    registry.register(Point)
    registry.register(Point)
    with pytest.raises(DuplicateTypeError, match="Box cannot be registered as 'Point'"):
        registry.register(Box, "Point")
    with pytest.raises(DuplicateTypeError, match="already stored as 'Point'"):
        registry.register(Point, "Place")
    local = dataclasses.make_dataclass("Local", [("x", int)])
    other = dataclasses.make_dataclass("Local", [("x", int)])
    for cls in (local, other):
        cls.__qualname__ = "test.<locals>.Local"
    registry.register(local)
    with pytest.raises(DuplicateTypeError, match=r"Local is stored under this name"):
        registry.register(other)
    assert registry.names() == ("Local", "Point")
    assert Point in registry
    assert Box not in registry


def test_a_reloaded_class_takes_the_place_of_the_old_one() -> None:
    registry = TypeRegistry()
    registry.register(Point)
    anew = dataclasses.make_dataclass("Point", [("x", int), ("y", int), ("tags", tuple)])
    anew.__module__, anew.__qualname__ = Point.__module__, Point.__qualname__
    registry.register(anew)
    assert type(materialise(decode(encode(Point(1), types=registry)), registry)) is anew


@pytest.mark.parametrize("cls", [int, Text, Bag, object, namedtuple("Pair", "a b"), 3, "Point"])  # noqa: PYI024
def test_only_enums_models_and_dataclasses_can_be_registered(cls: Any) -> None:
    with pytest.raises(CodecError, match="only enums, pydantic models and dataclasses"):
        TypeRegistry().register(cls)


def test_register_type_is_a_function_and_a_decorator() -> None:
    before = TYPES.names()
    with TYPES.isolated():

        @register_type
        class First(enum.Enum):
            A = 1

        @register_type(name="second")
        @dataclass
        class Second:
            x: int

        assert register_type(Point, name="third") is Point
        assert set(TYPES.names()) - set(before) == {"First", "second", "third"}
        raw, decoded = pack([["set", "x", [First.A, Second(1)]]])
        assert decoded == [["set", "x", [EnumData("First", 1), ModelData("second", {"x": 1})]]] == unpack(raw)
        assert materialise(decoded[0][2]) == [First.A, Second(1)]
    assert TYPES.names() == before
    with pytest.raises(UnserialisableError):
        encode(First.A)


# --- what a node gets, and what a person sees -------------------------------------------------------------------------


def test_what_a_node_gets_is_its_own() -> None:
    stored = {"rows": [{"tags": ["a"]}], "sizes": {1, 2}, "pair": ([1], 2), "flat": [1, 2]}
    given = materialise(stored)
    given["rows"][0]["tags"].append("b")
    given["sizes"].add(3)
    given["pair"][0].append(9)
    given["flat"].clear()
    assert stored == {"rows": [{"tags": ["a"]}], "sizes": {1, 2}, "pair": ([1], 2), "flat": [1, 2]}


def test_what_never_came_from_the_codec_is_not_copied() -> None:
    with pytest.raises(CodecError, match="a object is not decoded data"):
        materialise([object()])


def test_everything_can_be_shown_as_json() -> None:
    value = {
        "when": datetime(2024, 2, 29, tzinfo=UTC),
        "long": timedelta(hours=1),
        "price": Decimal("1.50"),
        "id": UUID(int=1),
        "raw": b"\xff",
        "odd": [math.nan, 2**70, "\ud800"],
        "set": {"b", "a"},
        (1, 2): None,
        Mood.GOOD: EnumData("Mood", "good"),
        "model": ModelData("Point", {"x": (1,)}, extra={"more": True}),
    }
    shown = to_json(value)
    assert json.loads(orjson.dumps(shown)) == {
        "when": "2024-02-29T00:00:00+00:00",
        "long": "1:00:00",
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "raw": "/w==",
        "odd": ["nan", "0x400000000000000000", "\\ud800"],
        "set": ["a", "b"],
        "[1, 2]": None,
        "good": "good",
        "model": {"x": [1], "more": True},
    }
