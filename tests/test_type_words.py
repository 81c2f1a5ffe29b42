"""A type in words: the same whatever way it is written, another one whenever something else may stand there."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, Union

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from engine.type_words import type_words


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


@dataclass
class Point:
    x: int
    y: Decimal | None = None


class Parts(TypedDict):
    one: int
    two: NotRequired[list[Colour]]


Cents = NewType("Cents", int)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "int"), (None, "None"), (Any, "Any"), (date, "date"), (dict, "dict"), (list[Any], "list[Any]"),
        (tuple[int, ...], "tuple[int, ...]"), (Mapping[str, int], "Mapping[str, int]"), (Cents, "int"),
        (Literal["a", 2], "'a' | 2"), (Colour, "Colour{RED: 'r', BLUE: 'b'}"), (Point, "Point{x: int, y: Decimal | None}"),
        (Parts, "Parts{one: int, two: list[Colour{RED: 'r', BLUE: 'b'}]}"), (Tree, "Tree{name: str, children: list[Tree]}"),
        (Annotated[int, Field(gt=0, description="how many")], "int"),
    ],
)  # fmt: skip
def test_a_type_is_told_by_what_may_stand_there(kind: Any, words: str) -> None:
    assert type_words(kind) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Optional[int], int | None), (Union[None, str, int], str | int | None), (typing.List[int], list[int]),  # noqa: UP006, UP007, UP045
        (typing.Dict[str, Optional[int]], dict[str, int | None]),  # noqa: UP006, UP045
    ],
)  # fmt: skip
def test_two_ways_to_write_a_type_have_the_same_words(one: Any, other: Any) -> None:
    assert type_words(one) == type_words(other)
