"""The input of a run from the path, the query and the body of a request."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, NotRequired

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from checkpoint_stores.memory import MemoryCheckpointStore
from engine.errors import InputError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.plan import END
from reducers.builtin import append


class Order(BaseModel):
    model_config = ConfigDict(strict=True)

    vendor: str
    amount: Decimal
    urgent: bool = False
    due: date | None = None
    tags: Annotated[list[str], append] = []
    sizes: set[int] | None = None
    note: str = Field(default="", validation_alias="remark")


class Mapped(TypedDict):
    vendor: str
    amount: Decimal
    urgent: NotRequired[bool]


def graph_of(state: Any) -> FlowGraph:
    flow = Flow("order", state)

    @flow.node
    async def nothing(state: Any) -> None:
        """Only the input matters."""

    return flow.set_entry("nothing").add_edge("nothing", END).compile()


ORDER = graph_of(Order)


@pytest.mark.parametrize("state", [Order, Mapped, {"vendor": str, "amount": Decimal, "urgent": bool}])
async def test_the_path_goes_before_the_query_and_the_query_before_the_body(state: Any) -> None:
    graph = graph_of(state)
    body = {"vendor": "body", "amount": Decimal(1), "urgent": False}
    given = graph.bind(path={"vendor": "path"}, query={"vendor": "query", "urgent": "true"}, body=body)
    assert given == {"vendor": "path", "amount": Decimal(1), "urgent": True}
    async with MemoryCheckpointStore() as store:
        result = await GraphExecutor(graph, store=store).execute(given)
        assert {key: result.values[key] for key in given} == given


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("amount", "1.50", Decimal("1.50")),
        ("urgent", "0", False),
        ("due", "2024-02-29", date(2024, 2, 29)),
        ("tags", "one", ["one"]),
        ("tags", ["one", "two"], ["one", "two"]),
        ("sizes", ["1", "2", "2"], {1, 2}),
        ("vendor", ["ACME"], "ACME"),
        ("vendor", "Łódź", "Łódź"),
        ("remark", "by hand", "by hand"),
    ],
)
def test_a_text_becomes_what_its_key_is_declared_as_even_where_the_model_is_strict(key: str, text: Any, value: Any) -> None:
    given = ORDER.bind(query={"vendor": "ACME", "amount": "1", key: text})
    assert given["note" if key == "remark" else key] == value


def test_only_what_was_given_is_answered_so_that_defaults_stay_defaults() -> None:
    assert ORDER.bind(path={"vendor": "ACME"}, query={"amount": "1"}) == {"vendor": "ACME", "amount": Decimal(1)}


def test_all_that_is_wrong_is_told_at_once_with_where_it_came_from() -> None:
    with pytest.raises(InputError) as caught:
        ORDER.bind(path={"id": "7"}, query={"due": "tomorrow", "vendor": ["a", "b"]}, body={"colour": "red", "urgent": True})
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "body: unknown key 'colour'",
        "query: due: Input should be a valid date or datetime, input is too short",
        "query: vendor: Input should be a valid string",
        "path: unknown key 'id'",
        "amount: Field required",
    ]


@pytest.mark.parametrize("body", [{"vendor": "ACME"}, None])
def test_what_is_missing_is_an_error_that_names_it(body: Any) -> None:
    with pytest.raises(InputError, match="amount: Field required"):
        ORDER.bind(query={"urgent": "true"}, body=body)


def test_a_body_is_data_and_no_text_of_it_is_read_as_something_else() -> None:
    with pytest.raises(InputError, match="amount: Input should be"):
        ORDER.bind(body={"vendor": "ACME", "amount": "1.50"})
    with pytest.raises(InputError, match="body: a list is no mapping of keys"):
        ORDER.bind(path={"vendor": "ACME"}, body=[1])


class Nested(BaseModel):
    city: str = Field(validation_alias=AliasPath("address", "city"))
    street: str = Field(default="", validation_alias=AliasPath("address", "street"))
    first: int = Field(default=0, validation_alias=AliasChoices("one", AliasPath("many", 0)))


@pytest.mark.parametrize(
    ("body", "given"),
    [
        ({"address": {"city": "Oslo", "street": "Main"}, "many": [7, 8]}, {"city": "Oslo", "street": "Main", "first": 7}),
        ({"address": {"city": "Oslo"}, "one": 1}, {"city": "Oslo", "first": 1}),
        ({"city": "Oslo"}, {"city": "Oslo"}),
    ],
)
async def test_a_body_gives_by_paths_what_a_start_would_read_by_them(body: dict[str, Any], given: dict[str, Any]) -> None:
    graph = graph_of(Nested)
    assert graph.bind(body=body) == given
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(graph, store=store)
        assert (await executor.execute(body)).values == (await executor.execute(graph.bind(body=body))).values


def test_a_body_whose_path_leads_nowhere_lacks_the_key() -> None:
    with pytest.raises(InputError) as caught:
        graph_of(Nested).bind(body={"address": {}})
    assert [problem for problem in caught.value.problems if "Field required" in problem]
