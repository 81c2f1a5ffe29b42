"""The state's keys: what may be written, and what a node sees."""

from __future__ import annotations

import copy
import functools
import pickle
import re
import warnings
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NotRequired, Required, TypedDict, TypeVar

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    computed_field,
    field_validator,
    model_validator,
)
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as NestedTypedDict  # pydantic asks for this one before Python 3.12

from checkpoint_stores.codec import TYPES, decode, encode
from engine.errors import InputError, ReadOnlyStateError
from engine.schema import StateSchema
from reducers import append, merge, reducer
from reducers.changes import ABSENT


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    city: str


@dataclass
class Point:
    x: int


class Order(BaseModel):
    vendor: str
    amount: float
    colour: Colour = Colour.RED
    address: Address | None = None
    where: Point | None = None
    lines: Annotated[list[str], append] = []
    _seen: int = PrivateAttr(default=7)

    @field_validator("vendor")
    @classmethod
    def vendor_is_named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a vendor has a name")
        return value.strip()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> float:
        return self.amount * 2

    @functools.cached_property
    def label(self) -> str:
        return f"{self.vendor}!"

    def first_line(self) -> str:
        return self.lines[0]

    def count(self) -> int:
        self._seen += 1
        return self._seen


class Range(BaseModel):
    low: int = 0
    high: int = 0

    @model_validator(mode="after")
    def low_is_not_above_high(self) -> Range:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    @field_validator("high")
    @classmethod
    def high_is_not_below_low(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("low", 0):
            raise ValueError("below low")
        return value


class Node(BaseModel):
    value: int
    next: Node | None = None


class Profile(NestedTypedDict):
    name: str
    age: int


class Notes(TypedDict):
    question: str
    answer: str
    score: Required[int]
    tags: Annotated[NotRequired[list[str]], append]


def stored(values: dict[str, Any]) -> dict[str, Any]:
    """The values as a run holds them: data that went through the codec."""
    return {key: decode(encode(value)) for key, value in values.items()}


def reading(values: dict[str, Any], reads: list[str] | None = None) -> Any:
    held = stored(values)

    def read(key: str) -> Any:
        if reads is not None:
            reads.append(key)
        return held.get(key, ABSENT)

    return read


ORDER = {"vendor": "ACME", "amount": 3.0, "colour": Colour.BLUE, "address": Address(city="Ulm"), "where": Point(1), "lines": ["a", "b"]}


def order_view(reads: list[str] | None = None) -> Any:
    return StateSchema(Order).view(reading(ORDER, reads))


# --- declaring ------------------------------------------------------------------------------------------------------
def test_a_model_declares_its_fields_with_reducers_defaults_and_requirements() -> None:
    keys = StateSchema(Order).keys
    assert list(keys) == ["vendor", "amount", "colour", "address", "where", "lines"]
    assert keys["lines"].reducer is append
    assert keys["vendor"].reducer.name == "error"
    assert (keys["vendor"].required, keys["vendor"].has_default) == (True, False)
    assert (keys["colour"].required, keys["colour"].default()) == (False, Colour.RED)  # type: ignore[misc]


def test_two_defaults_of_one_key_are_not_the_same_list() -> None:
    spec = StateSchema(Order).keys["lines"]
    assert spec.default is not None
    assert spec.default() is not spec.default()


def test_a_reducer_is_found_in_a_generic_model_and_below_an_optional() -> None:
    T = TypeVar("T")

    class Page(BaseModel, Generic[T]):
        items: Annotated[list[T], append] = []
        more: Annotated[list[str], append] | None = None

    keys = StateSchema(Page[int]).keys
    assert (keys["items"].reducer, keys["more"].reducer) == (append, append)


class Step(BaseModel):
    kind: Literal["step"] = "step"


class Jump(BaseModel):
    kind: Literal["jump"] = "jump"


Move = TypeAliasType("Move", Annotated[Step | Jump, Field(discriminator="kind")])
Moves = TypeAliasType("Moves", Annotated[list[Move], append])


def test_a_named_type_is_looked_into_for_its_reducer_and_its_classes() -> None:
    with TYPES.isolated():
        schema = StateSchema({"moves": Moves, "newest": Move | None})
        assert [spec.reducer.name for spec in schema.keys.values()] == ["append", "error"]
        assert Step in TYPES
        assert Jump in TYPES


def test_a_mapping_state_needs_at_the_start_only_what_is_marked_required() -> None:
    schema = StateSchema(Notes)
    assert [name for name, spec in schema.keys.items() if spec.required] == ["score"]
    assert schema.keys["tags"].reducer is append
    assert schema.validate_input("f", {"score": 1}) == {"score": 1}


def test_a_dict_of_annotations_may_carry_defaults() -> None:
    schema = StateSchema({"n": Annotated[int, Field(default=3, ge=1)], "seen": Annotated[list[str], append, Field(default_factory=list)]})
    assert schema.validate_input("f", {}) == {"n": 3, "seen": []}
    assert schema.keys["seen"].reducer is append


@pytest.mark.parametrize("declaration", [42, "state", list[int], {1: int}, int])
def test_what_declares_no_keys_is_refused(declaration: Any) -> None:
    with pytest.raises(TypeError, match="declares no keys"):
        StateSchema(declaration)


# --- input ----------------------------------------------------------------------------------------------------------
def test_an_input_is_completed_by_defaults_and_validated_by_the_model() -> None:
    values = StateSchema(Order).validate_input("f", {"vendor": " ACME ", "amount": "3"})
    assert values == {"vendor": "ACME", "amount": 3.0, "colour": Colour.RED, "address": None, "where": None, "lines": []}


def test_an_input_may_be_an_instance_of_the_model() -> None:
    assert StateSchema(Order).validate_input("f", Order(vendor="ACME", amount=1))["vendor"] == "ACME"


def test_every_problem_of_an_input_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        StateSchema(Order).validate_input("invoices", {"amount": "much", "colour": "green", "vendro": "x"})
    told = caught.value.problems
    assert [problem.split(":")[0] for problem in told] == [
        "unknown key 'vendro'; declared are", "vendor", "amount", "colour",
    ]  # fmt: skip
    assert "invoices" in str(caught.value)


def test_every_problem_of_a_mapping_input_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        StateSchema(Notes).validate_input("f", {"question": 1, "nope": 2})
    assert caught.value.problems == (
        "unknown key 'nope'; declared are: question, answer, score, tags", "question: Input should be a valid string", "score: Field required",
    )  # fmt: skip


def test_a_model_validator_runs_on_the_input() -> None:
    with pytest.raises(InputError, match=r"low is above high|below low"):
        StateSchema(Range).validate_input("f", {"low": 3, "high": 2})


def test_an_input_may_use_aliases_or_names() -> None:
    class Aliased(BaseModel):
        amount: int = Field(alias="betrag")

    schema = StateSchema(Aliased)
    assert schema.validate_input("f", {"betrag": 1}) == schema.validate_input("f", {"amount": 1}) == {"amount": 1}


def test_an_unknown_key_is_told_once_where_the_model_forbids_it_itself() -> None:
    class Closed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        n: int = 0

    with pytest.raises(InputError) as caught:
        StateSchema(Closed).validate_input("f", {"m": 1})
    assert caught.value.problems == ("unknown key 'm'; declared are: n",)


@pytest.mark.parametrize("given", [3, [("vendor", "x")], "vendor"])
def test_an_input_that_is_no_mapping_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="is no input"):
        StateSchema(Order).validate_input("f", given)


def test_no_input_is_an_empty_one() -> None:
    assert StateSchema({"n": int}).validate_input("f", None) == {}


# --- updates --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("amount", 1.5, 1.5),
        ("amount", 2, 2.0),
        ("amount", "2.5", 2.5),
        ("vendor", " x ", "x"),
        ("colour", "blue", Colour.BLUE),
        ("address", {"city": "Ulm"}, Address(city="Ulm")),
        ("lines", ["a"], ["a"]),
    ],
)
def test_an_update_becomes_what_its_key_declares(key: str, value: Any, expected: Any) -> None:
    found = StateSchema(Order).validate_update(key, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value"), [("amount", "much"), ("vendor", "  "), ("vendor", 3), ("lines", "a"), ("lines", [1]), ("address", {})]
)
def test_an_update_that_does_not_fit_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        StateSchema(Order).validate_update(key, value)


def test_an_update_of_an_undeclared_key_is_refused() -> None:
    for declaration in (Order, Notes):
        with pytest.raises(KeyError):
            StateSchema(declaration).validate_update("nope", 1)


def test_a_strict_model_converts_nothing() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        n: int = 0
        x: float = 0.0

    schema = StateSchema(Strict)
    assert (schema.validate_update("n", 1), schema.validate_update("x", 1.5)) == (1, 1.5)
    with pytest.raises(ValidationError):
        schema.validate_update("n", "1")


def test_the_short_way_for_plain_types_does_not_pass_a_models_own_rules() -> None:
    class Short(BaseModel):
        model_config = ConfigDict(str_max_length=3, allow_inf_nan=False)
        name: str = ""
        x: float = 0.0
        small: Annotated[int, Field(le=9)] = 0
        flag: bool = False

    schema = StateSchema(Short)
    for key, value in (("name", "long"), ("x", float("nan")), ("small", 10), ("flag", "maybe")):
        with pytest.raises(ValidationError):
            schema.validate_update(key, value)


def test_an_update_does_not_run_model_validators() -> None:
    schema = StateSchema(Range)
    assert schema.validate_update("low", 9) == 9


def test_a_field_validator_sees_the_other_keys_of_the_state() -> None:
    schema = StateSchema(Range)
    assert schema.validate_update("high", 3, reading({"low": 2})) == 3
    with pytest.raises(ValidationError, match="below low"):
        schema.validate_update("high", 1, reading({"low": 2}))


def test_only_keys_whose_validators_look_around_read_the_state() -> None:
    reads: list[str] = []
    StateSchema(Range).validate_update("low", "1", reading({"high": 2}, reads))
    assert reads == []


def test_a_model_that_holds_itself_can_be_a_state() -> None:
    schema = StateSchema(Node)
    assert schema.validate_update("next", {"value": 1}) == Node(value=1)
    with pytest.raises(ValidationError):
        schema.validate_update("next", {"value": "x"})


def test_a_typed_dict_that_is_merged_may_be_given_in_part() -> None:
    schema = StateSchema({"who": Annotated[Profile, merge], "all": Profile})
    assert schema.validate_update("who", {"age": 3}) == {"age": 3}
    with pytest.raises(ValidationError):
        schema.validate_update("who", {"age": "old"})
    with pytest.raises(ValidationError):
        schema.validate_update("all", {"age": 3})


def test_a_reducer_of_ones_own_may_take_updates_of_another_type() -> None:
    @reducer("test_schema_add_one")
    def add_one(current: Any, update: Any) -> Any:
        return [*(current or []), update]

    schema = StateSchema({"seen": Annotated[list[int], add_one]})
    assert schema.validate_update("seen", 3) == 3
    assert schema.validate_update("seen", ["3"]) == [3]


# --- the end --------------------------------------------------------------------------------------------------------
def test_the_final_state_is_checked_as_a_whole() -> None:
    schema = StateSchema(Range)
    schema.check_final(reading({"low": 1, "high": 2}))
    with pytest.raises(ValueError, match=r"low is above high|below low"):
        schema.check_final(reading({"low": 3, "high": 2}))
    with pytest.raises(ValueError, match="vendor: Field required"):
        StateSchema(Order).check_final(reading({"amount": 1.0}))
    StateSchema(Order).check_final(reading(ORDER))


def test_the_final_mapping_needs_what_is_marked_required() -> None:
    StateSchema(Notes).check_final(reading({"score": 1}))
    with pytest.raises(ValueError, match="score: Field required"):
        StateSchema(Notes).check_final(reading({"answer": "x"}))


# --- views ----------------------------------------------------------------------------------------------------------
def test_a_view_reads_only_what_is_asked_and_once() -> None:
    reads: list[str] = []
    view = order_view(reads)
    assert isinstance(view, Order)
    assert (view.vendor, view.lines, view.lines) == ("ACME", ["a", "b"], ["a", "b"])
    assert reads == ["vendor", "lines"]


def test_a_view_revives_enums_models_and_dataclasses() -> None:
    view = order_view()
    assert view.colour is Colour.BLUE
    assert (view.address, view.where) == (Address(city="Ulm"), Point(1))


def test_a_view_is_worth_the_model_it_stands_for() -> None:
    plain = Order(**ORDER)
    assert repr(order_view()) == repr(plain)
    assert order_view() == plain
    assert plain == order_view()
    assert order_view() == order_view()
    assert order_view().model_dump() == plain.model_dump()
    assert order_view().model_dump_json() == plain.model_dump_json()
    assert dict(order_view()) == dict(plain)
    assert vars(order_view()) == vars(plain)
    assert order_view().__class__ is Order


def test_methods_computed_fields_and_cached_properties_work_on_a_view() -> None:
    view = order_view()
    assert (view.gross, view.label, view.label, view.first_line()) == (6.0, "ACME!", "ACME!", "a")
    assert (view.count(), view.count()) == (8, 9)


def test_a_view_inside_another_model_is_dumped_whole() -> None:
    class Wrapper(BaseModel):
        order: Order

    assert Wrapper(order=order_view()).model_dump()["order"] == Order(**ORDER).model_dump()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda view: view.model_copy(), lambda view: view.model_copy(deep=True)])
def test_a_copy_of_a_view_is_the_plain_model_and_may_be_changed(copied: Any) -> None:
    made = copied(order_view())
    assert type(made) is Order
    made.vendor = "other"
    assert made.vendor == "other"


def test_a_view_can_be_pickled_as_the_plain_model() -> None:
    assert type(pickle.loads(pickle.dumps(order_view()))) is Order


def test_a_copy_can_be_made_with_changes() -> None:
    assert order_view().model_copy(update={"amount": 1.0}).amount == 1.0


def test_a_view_cannot_be_assigned_to() -> None:
    view = order_view()
    with pytest.raises(ReadOnlyStateError, match=re.escape("return {'vendor': ...}")):
        view.vendor = "x"
    with pytest.raises(ReadOnlyStateError):
        del view.vendor
    with pytest.raises(ReadOnlyStateError):
        view.other = 1
    assert view.vendor == "ACME"


def test_changing_what_a_view_holds_does_not_reach_the_state() -> None:
    held = stored(ORDER)
    schema = StateSchema(Order)
    first = schema.view(lambda key: held.get(key, ABSENT))
    first.lines.append("c")
    first.address.city = "Bonn"
    second = schema.view(lambda key: held.get(key, ABSENT))
    assert (second.lines, second.address.city) == (["a", "b"], "Ulm")


def test_a_key_that_holds_nothing_answers_with_its_default_or_says_so() -> None:
    view = StateSchema(Order).view(reading({"amount": 1.0}))
    assert view.lines == []
    with pytest.raises(AttributeError, match="holds nothing under 'vendor'"):
        _ = view.vendor
    assert not hasattr(view, "vendor")
    assert hasattr(view, "amount")


def test_a_view_with_a_key_missing_can_still_be_dumped_and_shown() -> None:
    view = StateSchema(Order).view(reading({"amount": 1.0}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert view.model_dump(exclude={"gross"})["amount"] == 1.0
        assert "amount=1.0" in repr(view)


def test_the_hooks_of_a_users_class_do_not_run_for_its_views() -> None:
    made: list[str] = []

    class Watched(BaseModel):
        n: int = 0

        def __init_subclass__(cls, **options: Any) -> None:
            made.append(cls.__name__)
            super().__init_subclass__(**options)

        @classmethod
        def __pydantic_init_subclass__(cls, **options: Any) -> None:
            made.append(cls.__name__)

    assert StateSchema(Watched).view(reading({"n": 3})).n == 3  # type: ignore[attr-defined]
    assert made == []


def test_a_frozen_model_has_views_that_can_be_hashed() -> None:
    class Frozen(BaseModel):
        model_config = ConfigDict(frozen=True)
        n: int = 0

    assert hash(StateSchema(Frozen).view(reading({"n": 3}))) == hash(Frozen(n=3))


def test_the_view_of_a_mapping_state_is_a_read_only_mapping() -> None:
    reads: list[str] = []
    view = StateSchema(Notes).view(reading({"question": "why", "tags": ["a"]}, reads))
    assert view["tags"] == ["a"]
    assert view["tags"] is view["tags"]
    assert reads == ["tags"]
    assert dict(view) == {"question": "why", "tags": ["a"]} == view
    assert (len(view), "answer" in view, "question" in view, view.get("answer", 3)) == (2, False, True, 3)
    assert view | {"answer": 1} == {"question": "why", "tags": ["a"], "answer": 1}
    assert {**view} == view.copy() == copy.deepcopy(view)
    assert repr(view) == "{'question': 'why', 'tags': ['a']}"
    assert type(pickle.loads(pickle.dumps(view))) is dict


def test_the_view_of_a_mapping_state_cannot_be_assigned_to() -> None:
    view = StateSchema({"n": list[int]}).view(reading({"n": [1]}))
    with pytest.raises(ReadOnlyStateError):
        view["n"] = 1
    with pytest.raises(ReadOnlyStateError):
        del view["n"]
    view["n"].append(2)
    assert StateSchema({"n": list[int]}).view(reading({"n": [1]}))["n"] == [1]
    with pytest.raises(KeyError):
        view["m"]
