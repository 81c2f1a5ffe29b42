"""A picture of a definition as SVG, without any other program: nodes in layers from the entry down, branches in boxes.

Plain and readable rather than beautiful; `engine.draw` gives Mermaid and DOT for more.  Knows definitions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

from engine.draw import Picture, highlighted, picture

_LETTER: Final = 7.5
"""Width of a letter at the font size used, in pixels; a little generous."""
_LINE: Final = 18.0
_GAP: Final = 36.0
_ACROSS: Final = 58.0
"""Between neighbours in a row; the arrow between them has a label."""
_MARGIN: Final = 14.0
_LANE: Final = 16.0
"""Between two arrows that go around."""
_ARROW_TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#495057"/></marker></defs>'
)


class _Box(NamedTuple):
    """A drawn node: centre and size in pixels, and what stands in it."""

    x: float
    y: float
    width: float
    height: float


class _Drawn(NamedTuple):
    """A drawn scope: its size and its parts as SVG lines, to be moved as a whole."""

    width: float
    height: float
    parts: list[str]


def svg(definition: dict[str, Any], *, visited: Iterable[str] = (), current: Iterable[str] = ()) -> str:
    """An SVG document; the path taken is filled, where the run stands is outlined."""
    drawn = _scope(picture(definition), highlighted(visited, definition), highlighted(current, definition))
    size = f'width="{drawn.width:.0f}" height="{drawn.height:.0f}" viewBox="0 0 {drawn.width:.0f} {drawn.height:.0f}"'
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        _ARROW_TIP,
        *drawn.parts,
        "</svg>",
        "",
    ))  # fmt: skip


def _scope(scope: Picture, seen: frozenset[str], here: frozenset[str]) -> _Drawn:
    inner = {node: [(branch.title, _scope(branch, seen, here)) for branch in branches] for node, branches in scope.inner.items()}
    sizes = {name: _size(label, inner.get(name, [])) for name, _kind, label in scope.nodes}
    layers = layers_of(scope)
    width = max(sum(sizes[name][0] + _ACROSS for name in layer) - _ACROSS for layer in layers) + 2 * _MARGIN
    boxes: dict[str, _Box] = {}
    rows: dict[str, tuple[float, float]] = {}
    top = _MARGIN
    for layer in layers:
        tallest = max(sizes[name][1] for name in layer)
        left = (width - sum(sizes[name][0] + _ACROSS for name in layer) + _ACROSS) / 2
        for name in layer:
            wide, high = sizes[name]
            boxes[name] = _Box(left + wide / 2, top + tallest / 2, wide, high)
            rows[name] = top, top + tallest
            left += wide + _ACROSS
        top += tallest + _GAP
    rank = {name: index for index, layer in enumerate(layers) for name in layer}
    parts: list[str] = []
    lane = width - _MARGIN
    for source, target, kind, label in scope.edges:
        around = rank[target] - rank[source] != 1 and (rank[target] != rank[source] or source == target)
        lane += _LANE if around else 0
        route = (rows[source][1], rows[target][0], lane) if around else None
        parts += _edge(boxes[source], boxes[target], kind, label, route)
    width = lane + _MARGIN
    for name, kind, label in scope.nodes:
        parts += _node(boxes[name], kind, label, "current" if name in here else "visited" if name in seen else "", inner.get(name, []))
    return _Drawn(width, top - _GAP + _MARGIN, parts)


def layers_of(scope: Picture) -> list[list[str]]:
    """The nodes of a scope by distance from its entry, in declared order; what cannot be reached comes last."""
    depth = {scope.entry: 0}
    waiting = [scope.entry]
    for name in waiting:  # grows while it is walked
        for source, target, _kind, _label in scope.edges:
            if source == name and target not in depth:
                depth[target] = depth[name] + 1
                waiting.append(target)
    ends = [name for name, kind, _label in scope.nodes if kind == "end"]
    last = max((found for name, found in depth.items() if name not in ends), default=0) + 1
    depth |= dict.fromkeys(ends, last)
    layers: dict[int, list[str]] = {}
    for name, _kind, _label in scope.nodes:
        layers.setdefault(depth.get(name, last), []).append(name)
    return [layers[index] for index in sorted(layers)]


def _size(label: str, branches: list[tuple[str, _Drawn]]) -> tuple[float, float]:
    lines = label.split("\n")
    width = max(len(line) for line in lines) * _LETTER + 28
    height = len(lines) * _LINE + 14
    if branches:
        width = max(width, sum(drawn.width + _MARGIN for _title, drawn in branches) + _MARGIN)
        height += max(drawn.height for _title, drawn in branches) + _LINE + 2 * _MARGIN
    return width, height


def _node(box: _Box, kind: str, label: str, mark: str, branches: list[tuple[str, _Drawn]]) -> Iterator[str]:
    fill, stroke, thick = {"visited": ("#d3f0dd", "#2b8a4b", 1.5), "current": ("#fff3bf", "#e67700", 3)}.get(
        mark, ("#ffffff", "#495057", 1.5)
    )
    left, top = box.x - box.width / 2, box.y - box.height / 2
    look = f'fill="{fill}" stroke="{stroke}" stroke-width="{thick:g}"'
    if kind == "barrier":
        right, bottom = left + box.width, top + box.height
        points = f"{left + 12:.1f},{top:.1f} {right - 12:.1f},{top:.1f} {right:.1f},{box.y:.1f} "
        points += f"{right - 12:.1f},{bottom:.1f} {left + 12:.1f},{bottom:.1f} {left:.1f},{box.y:.1f}"
        yield f'<polygon points="{points}" {look}/>'
    else:
        round_by = box.height / 2 if kind == "end" else 5
        yield f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{round_by:.1f}" {look}/>'
    for index, line in enumerate(label.split("\n")):
        small = ' font-size="11" fill="#495057"' if index else ""
        yield f'<text x="{box.x:.1f}" y="{top + 20 + index * _LINE:.1f}" text-anchor="middle"{small}>{escape(line)}</text>'
    at_x, at_y = left + _MARGIN, top + (label.count("\n") + 1) * _LINE + 14
    for title, drawn in branches:
        frame = f'width="{drawn.width:.1f}" height="{drawn.height + _LINE:.1f}" rx="4" fill="#f8f9fa" stroke="#ced4da"'
        yield f'<g transform="translate({at_x:.1f} {at_y:.1f})"><rect {frame}/>'
        yield f'<text x="8" y="15" font-size="11" fill="#495057">{escape(title)}</text><g transform="translate(0 {_LINE:.0f})">'
        yield from drawn.parts
        yield "</g></g>"
        at_x += drawn.width + _MARGIN


def _edge(a: _Box, b: _Box, kind: str, label: str, around: tuple[float, float, float] | None) -> Iterator[str]:
    """An arrow down to the next layer, across within a layer, or ``around`` by a lane on the right where it skips layers or goes back.

    ``around``: the bottom of the row it leaves, the top of the row it reaches, the x of its lane.
    """
    anchor = "middle"
    if around is not None:
        bottom, top, lane = around
        low, high = bottom + _GAP / 3, top - _GAP / 3
        start, end = (a.x + 8, a.y + a.height / 2), (b.x + 8, b.y - b.height / 2)
        points = start, (start[0], low), (lane, low), (lane, high), (end[0], high), end
        label_at, anchor = (start[0] + 5, low - 2), "start"
        path = "M" + "L".join(_at(point) for point in points)
    elif a.y == b.y:
        side = 1 if b.x > a.x else -1
        start, end = (a.x + side * a.width / 2, a.y), (b.x - side * b.width / 2, b.y)
        label_at = ((start[0] + end[0]) / 2, start[1] - 3)
        path = f"M{_at(start)}L{_at(end)}"
    else:
        start, end = (a.x, a.y + a.height / 2), (b.x, b.y - b.height / 2)
        half = (start[1] + end[1]) / 2
        label_at = ((start[0] + end[0]) / 2, half + 4)
        path = f"M{_at(start)}C{_at((start[0], half))} {_at((end[0], half))} {_at(end)}"
    dashes = ' stroke-dasharray="5 4"' if kind == "fallback" else ""
    yield f'<path d="{path}" fill="none" stroke="#495057" stroke-width="1.3" stroke-linejoin="round"{dashes} marker-end="url(#tip)"/>'
    if label:
        look = f'text-anchor="{anchor}" font-size="11" fill="#1864ab" paint-order="stroke" stroke="#ffffff" stroke-width="3"'
        yield f'<text x="{label_at[0]:.1f}" y="{label_at[1]:.1f}" {look}>{escape(label)}</text>'


def _at(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"
