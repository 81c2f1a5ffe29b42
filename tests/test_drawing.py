"""A definition can be drawn, with the path taken, without the author's code."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_stores.memory import MemoryCheckpointStore
from engine.conditions import approved
from engine.draw import dot, mermaid, picture
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.operations import steps
from engine.plan import END
from engine.svg import layers_of, svg
from trailmark.cli.progress import told


def work(state: Any) -> None: ...


def drawn_flow() -> FlowGraph:
    inner = Flow("inner").add_node("read", work).add_barrier("sign", approvers=["ben"]).set_entry("read")
    inner.add_edge("read", "sign").add_edge("sign", END)
    flow = Flow("whole", {"n": int}).add_node("first", work).add_parallel("both", {"law & order": inner, "money": work})
    flow.add_barrier("approve", approvers=["ana", "ben"], quorum=2).set_entry("first")
    flow.add_edge("first", "both").add_edge("both", "approve").add_edge("approve", END, when=approved).add_edge("approve", "first")
    return flow.add_fallback("both", END, on=[OSError]).compile()


GRAPH = drawn_flow()


def test_mermaid_shows_every_node_edge_and_branch() -> None:
    text = GRAPH.to_mermaid()
    assert text.startswith("flowchart TD\n")
    for part in (
        '["first"]',
        '[["both<br/>fail_fast"]]',
        '{{"approve<br/>2 of ana, ben"}}',
        '(("end"))',
        '|"approved"|',
        '-.->|"OSError"|',
        '["law #amp; order"]',
        '["money"]',
        '{{"sign<br/>ben"}}',
    ):
        assert part in text, part
    assert text.count("subgraph ") == 2 == len(re.findall(r"^ *end$", text, re.MULTILINE))


def test_mermaid_uses_no_id_that_is_not_drawn_and_none_twice() -> None:
    text = GRAPH.to_mermaid()
    drawn = re.findall(r"^ *(n\d+)[\[({]", text, re.MULTILINE)
    assert len(drawn) == len(set(drawn)) == 9
    assert set(re.findall(r"\bn\d+\b", text)) == set(drawn)


def test_the_path_taken_and_the_present_place_are_highlighted() -> None:
    text = GRAPH.to_mermaid(visited=["first", "both", "both#2[0].read"], current=["both#2[0].sign"])
    first, both, read, sign = (re.search(rf'(n\d+)\W+"{name}', text)[1] for name in ("first", "both", "read", "sign"))  # type: ignore[index]
    assert re.search(rf"class {both},{read},{first} visited", text)
    assert f"class {sign} current" in text
    assert "class" not in GRAPH.to_mermaid().replace("classDef", "")


def test_dot_shows_every_node_edge_and_branch() -> None:
    text = GRAPH.to_dot(visited=["first"], current=["both[0].sign"])
    assert text.startswith('digraph "whole" {')
    assert text.count("{") == text.count("}")
    for part in (
        '"first" -> "both"',
        '"approve" -> "__end__" [label="approved"]',
        "style=dashed",
        'subgraph "cluster both[0]"',
        '"both[0].read" -> "both[0].sign"',
        '"both[1].money" [shape=box',
    ):
        assert part in text, part
    assert re.search(r'^ *"first" \[.*#d3f0dd', text, re.MULTILINE)
    assert re.search(r'^ *"both\[0\].sign" \[.*#fff3bf', text, re.MULTILINE)


def test_svg_is_well_formed_and_shows_every_node() -> None:
    root = ET.fromstring(GRAPH.to_svg(visited=["first"], current=["both#1[0].sign"]))
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("first", "both", "approve", "end", "law & order", "money", "sign", "read", "approved", "OSError"):
        assert name in texts, name
    fills = [shape.get("fill") for shape in root.iter() if shape.tag.endswith(("rect", "polygon"))]
    assert (fills.count("#d3f0dd"), fills.count("#fff3bf")) == (1, 1)


def test_nodes_of_a_picture_do_not_lie_on_each_other() -> None:
    flow = Flow("wide", {"n": int}).add_node("a", work).set_entry("a").add_edge("a", END)
    for index in range(8):
        flow.add_node(f"b{index}", work).add_edge("a", f"b{index}", when=lambda state: True, name=f"c{index}").add_edge(f"b{index}", END)
    root = ET.fromstring(flow.compile().to_svg())
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = []
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, wide, high = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + high <= height
        boxes.append((x, y, wide, high))
    for index, (x, y, wide, high) in enumerate(boxes):
        for other_x, other_y, other_wide, other_high in boxes[index + 1 :]:
            assert x + wide <= other_x or other_x + other_wide <= x or y + high <= other_y or other_y + other_high <= y


def test_layers_follow_the_distance_from_the_entry_and_the_end_comes_last() -> None:
    assert layers_of(picture(GRAPH.definition)) == [["first"], ["both"], ["approve"], [END]]


@pytest.mark.parametrize("draw", [mermaid, dot, svg])
def test_pictures_are_made_of_the_stored_definition_alone(draw: Any) -> None:
    stored = json.loads(json.dumps(GRAPH.definition))
    assert draw(stored) == draw(GRAPH.definition) == draw(stored, visited=["unknown"], current=["both[9].x"])


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda name: name.strip() and not re.search(r"[#\[\].,]|->|^__.*__$", name)
)


@given(NAMES, st.sampled_from(["end", "class", 'a"b', "<b>", "a\\", "graph", "x|y", "&lt;"]))
def test_any_name_can_be_drawn(one: str, other: str) -> None:
    flow = Flow("f", {"n": int}).add_node(one, work).add_node(other, work).set_entry(one)
    if one == other:
        return
    definition = flow.add_edge(one, other, when=lambda state: True, name=other).add_edge(other, END).add_edge(one, END).compile().definition
    names = ["".join(text.itertext()) for text in ET.fromstring(svg(definition)).iter("{http://www.w3.org/2000/svg}text")]
    assert one in names
    assert other in names
    assert (
        len(re.findall(r'^ *"(?:[^"\\]|\\.)*" \[shape=(?:box|doublecircle), label="(?:[^"\\]|\\.)*"\];$', dot(definition), re.MULTILINE))
        == 3
    )
    assert len(re.findall(r'^ *n\d+(?:\["[^"]*"\]|\(\("[^"]*"\)\))$', mermaid(definition), re.MULTILINE)) == 3


async def test_a_node_that_leads_to_itself_shows_its_arrow_everywhere() -> None:
    flow = Flow("self", {"n": int}).add_node("count", lambda state: {"n": state["n"] + 1})
    flow.add_barrier("ask").set_entry("count")
    flow.add_edge("count", "count", when=lambda state: state["n"] < 2, name="again").add_edge("count", "ask").add_edge("ask", END)
    graph = flow.compile()
    assert 'n0 -->|"again"| n0' in graph.to_mermaid()
    assert '"count" -> "count" [label="again"];' in graph.to_dot()
    assert graph.to_svg().count("marker-end") == len(graph.definition["edges"])
    async with MemoryCheckpointStore() as store:
        run = await GraphExecutor(graph, store=store).execute({"n": 0})
        lines = [line async for line in steps(store, run.run_id)]
    assert [(line.row.kind, line.row.node, line.went) for line in lines[1:]] == [
        ("step", "count", "count"),
        ("step", "count", "ask"),
        ("barrier", "ask", ""),
    ]
    assert told(lines[1].row).detail == "→ count"
