"""What the author of a changed flow declares about runs of an older version: new names of nodes, and what becomes of the values.

Data and one function of the author's.  Knows no run, no store and no graph; `engine.migrating` applies it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_STEP: Final = re.compile(r"(?P<node>[^\[\].#]+)\[(?P<index>\d+|\*)\]\Z")
_PIECE: Final = re.compile(r"(?P<node>[^\[\].#]+)(?P<visit>#\d+)?\[(?P<index>\d+)\]\Z")


@dataclass(frozen=True, slots=True)
class Migration:
    """How a run of an older version of the flow goes over to the next one.

    Applied when such a run is resumed: as one checkpoint, before anything else happens.  A flow lists its migrations oldest first;
    each leads to the version of the next one, the last to the flow's own.

    >>> Migration("1", rename={"manager": "approval", "checks[0].review": "look"}).rename["manager"]
    'approval'
    """

    from_version: str
    """The version of the flow that the run was driven by."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """New names of nodes by their old places: ``manager``, or in a branch ``checks[0].review`` (``checks[*].review``: in every branch or item).
    Places are named as they were in the old version."""
    state: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
    """Gets the run's values as the old version stored them (models as plain dicts) and returns all values of the new version, which are
    checked against its state.  Must be pure: it may be called more than once.  None = the values stay as they are."""

    def __post_init__(self) -> None:
        if not isinstance(self.from_version, str):
            raise TypeError(f"from_version must be a text, not {self.from_version!r}")
        new: dict[tuple[Any, str], str] = {}
        for place, name in self.rename.items():
            steps, _old = parsed(place)
            if not isinstance(name, str) or not name or not set(name).isdisjoint("[].#,"):
                raise ValueError(f"rename={{{place!r}: {name!r}}}: the new name is the bare name of a node")
            other = new.setdefault((steps, name), place)
            if other != place:
                raise ValueError(f"rename: {other!r} and {place!r} would both be called {name!r}")


def parsed(place: str) -> tuple[tuple[tuple[str, int | None], ...], str]:
    """The branches that a place leads through (None: any), and the node at its end.

    >>> parsed("checks[*].inner[2].review")
    ((('checks', None), ('inner', 2)), 'review')

    Raises ValueError.
    """
    *way, node = place.split(".")
    steps = [_STEP.match(step) for step in way]
    if not node or not set(node).isdisjoint("[]#,") or not all(steps):
        raise ValueError(f"{place!r} is no place of a node; write manager, or checks[0].review, or checks[*].review")
    return tuple((step["node"], None if step["index"] == "*" else int(step["index"])) for step in steps if step), node


class Names:
    """New names of nodes, for any place a run may stand at."""

    def __init__(self, rename: Mapping[str, str]) -> None:
        self._places = [(*parsed(place), new) for place, new in rename.items()]

    def within(self, path: str) -> dict[str, str]:
        """The new names of the nodes of the flow that the scope at ``path`` (as it was called) walks.

        >>> Names({"a": "b", "fan[*].x": "y"}).within("fan#2[7]")
        {'x': 'y'}
        """
        way = _way(path)
        return {old: new for steps, old, new in self._places if len(steps) == len(way) and all(map(_fits, steps, way))}

    def node(self, path: str, node: str) -> str:
        """What a node is called now."""
        return self.within(path).get(node, node)

    def path(self, path: str) -> str:
        """What a scope is called now.

        >>> Names({"fan": "rays", "fan[0].inner": "core"}).path("fan#2[0].inner[1]")
        'rays#2[0].core[1]'
        """
        made: list[str] = []
        for number, piece in enumerate(pieces := path.split(".") if path else []):
            found = _PIECE.match(piece)
            assert found is not None  # noqa: S101 - a scope's path is made of such pieces
            made.append(f"{self.node('.'.join(pieces[:number]), found['node'])}{found['visit'] or ''}[{found['index']}]")
        return ".".join(made)


def _way(path: str) -> list[tuple[str, int]]:
    found = [_PIECE.match(piece) for piece in path.split(".")] if path else []
    return [(piece["node"], int(piece["index"])) for piece in found if piece]


def _fits(step: tuple[str, int | None], piece: tuple[str, int]) -> bool:
    return step[0] == piece[0] and step[1] in (None, piece[1])


def chain_from(migrations: Sequence[Migration], version: str) -> tuple[Migration, ...]:
    """The migrations that a run of ``version`` needs, in order; none where none was declared from there.

    >>> [each.from_version for each in chain_from([Migration("1"), Migration("2"), Migration("3")], "2")]
    ['2', '3']
    """
    for number, migration in enumerate(migrations):
        if migration.from_version == version:
            return tuple(migrations[number:])
    return ()
