"""What can be wrong with the migrations a flow declares, found before any run is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from engine.migration import Migration, Names, parsed
from engine.resolve import Scope


def migration_problems(scope: Scope) -> list[str]:
    """Every problem of a flow's migrations."""
    return list(_problems(scope))


def _problems(scope: Scope) -> Iterator[str]:
    migrations = scope.declaration.migrations
    strangers = [each for each in migrations if not isinstance(each, Migration)]
    if strangers:
        yield f"migrations holds {strangers[0]!r}; give Migration(from_version=..., ...)"
        return
    for version, count in Counter(each.from_version for each in migrations).items():
        if count > 1:
            yield f"{count} migrations lead from version {version!r}; give one, for they are applied one after the other"
        if version == scope.declaration.version:
            yield f"a migration leads from version {version!r}, which is the flow's own; give the changed flow another version"
    if migrations:
        # Only the last one leads to this flow: names that an earlier one gives may be gone since.
        names = Names(migrations[-1].rename)
        for place, new in migrations[-1].rename.items():
            steps, _old = parsed(place)
            if all(new not in found.nodes for found in _flows(scope, names, "", steps)):
                yield f"the migration from version {migrations[-1].from_version!r} renames {place!r} to {new!r}, which this flow does not have there"


def _flows(scope: Scope, names: Names, path: str, steps: Sequence[tuple[str, int | None]]) -> Iterator[Scope]:
    """The flows of today at a place that is named as it was."""
    if not steps:
        yield scope
        return
    (node, wanted), *rest = steps
    for index, branch in enumerate(scope.branches.get(names.node(path, node), ())):
        if wanted in (None, index):
            yield from _flows(branch.scope, names, (f"{path}." if path else "") + f"{node}[{index}]", rest)
