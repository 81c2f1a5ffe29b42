"""What declared migrations make of a run: its position under new names, its values as the new version holds them.

Pure, but for the author's state function.  Works on a copy of the folded state and returns data; nothing here is called on load: the
checkpoint holds what came out.  The rows before it stay as they were written, under the old names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from checkpoint_stores.codec import decode, encode, pack
from checkpoint_stores.fold import AT, FAILED, OPEN, PARKED, RETRY, WAIT, RunState, Scope
from checkpoint_stores.records import TicketMove
from checkpoint_stores.registered import EnumData, ModelData
from engine.errors import InputError, MigrationError
from engine.graph import FlowGraph
from engine.identity import key_of, ticket_name
from engine.migration import Migration, Names, chain_from
from engine.updates import first_line


class Migrated(NamedTuple):
    """A run as the new version has it."""

    state: RunState
    definition: dict[str, Any]
    """What the run was driven by, in the new names: what still differs is judged like any other change."""
    tickets: tuple[TicketMove, ...]
    barriers: dict[str, str]
    """New names of barriers, as decisions made early may give them."""
    versions: tuple[str, ...]
    """Those it went through, the new one last."""
    paths: dict[str, str]
    """New paths of open scopes, by their old ones."""


def migrated(graph: FlowGraph, old: Mapping[str, Any], state: RunState) -> Migrated | None:
    """What the migrations of ``graph`` make of the run at ``state``, which was driven by ``old``; None where none is declared for its version.

    Raises MigrationError.  ``state`` is only read.
    """
    chain = chain_from(graph.migrations, str(old.get("version", "")))
    if not chain:
        return None
    versions = (*(each.from_version for each in chain), graph.version)
    run = _Run(dict(old), _copied(state), versions)
    before = tuple(run.state.scopes)
    for migration in chain:
        run.rename(Names(migration.rename))
    if any(each.state for each in chain):
        run.upgrade(graph, chain)
    moved = tuple(TicketMove(old, new, scope.node, scope.path) for old, new, scope in run.moved_tickets())
    paths = {was: now for was, now in zip(before, run.state.scopes, strict=True) if was != now}
    return Migrated(run.state, run.definition, moved, run.barriers, versions, paths)


def _copied(state: RunState) -> RunState:
    return RunState.restored(state.run_id, decode(encode(state.dump())), state.digest)


class _Run:
    """A run on its way through the versions."""

    def __init__(self, definition: dict[str, Any], state: RunState, versions: tuple[str, ...]) -> None:
        self.definition = definition
        self.state = state
        self.versions = versions
        self.barriers: dict[str, str] = {}
        self._tickets = {scope.detail[0]: scope for scope in state.frontier() if scope.phase == PARKED}

    def moved_tickets(self) -> Iterator[tuple[str, str, Scope]]:
        for ticket, scope in self._tickets.items():
            if scope.detail[0] != ticket:
                yield ticket, scope.detail[0], scope

    def refused(self, reason: str) -> MigrationError:
        return MigrationError(self.state.run_id, self.versions[0], self.versions[-1], reason)

    # --- names ------------------------------------------------------------------------------------------------------
    def rename(self, names: Names) -> None:
        """Give everything in the position its new name."""
        kinds = dict(_kinds(self.definition))
        self._check(names, kinds)
        state, keys = self.state, dict(self.state.details.get("keys", {}))
        scopes: dict[str, Scope] = {}
        for path, scope in state.scopes.items():
            own, here = names.within(path), _first_path(self.definition, path)
            if scope.phase in (AT, RETRY, WAIT) and kinds.get((here, scope.node)) == "task":
                self._keep_key(scope, path, names, keys)
            scope.path = names.path(path)
            scopes[scope.path] = scope
            _rename_detail(scope, path, own, names)
            scope.error = _renamed_error(scope.error, names)
            scope.node = own.get(scope.node, scope.node)
            scope.visits = {own.get(node, node): count for node, count in scope.visits.items()}
            scope.hops = {_renamed_hop(hop, own): count for hop, count in scope.hops.items()}
            below = _only_names_below(kinds, names, here)
            scope.decisions = {own.get(node) or below.get(node, node): said for node, said in scope.decisions.items()}
        state.scopes = scopes
        if keys:
            state.details = {**state.details, "keys": keys}
        self._follow(names, kinds)
        self.definition = _renamed_definition(self.definition, names, "")

    def _check(self, names: Names, kinds: Mapping[tuple[str, str], str]) -> None:
        """A new name must be new: counts, keys of effects and tickets of two nodes would be mixed up otherwise."""
        for path, node in kinds:
            new = names.node(path, node)
            if new != node and (path, new) in kinds:
                raise self.refused(f"it renames {node!r} to {new!r}, and the old version has a node of that name; choose another")
        for scope in self.state.scopes.values():
            if scope.phase != OPEN or not scope.unbegun():
                continue
            entry = scope.detail[2]["entry"]
            inside = scope.child_path(scope.node, scope.detail[1], 0)
            if names.path(inside) != inside or names.node(inside, entry) != entry:
                # What their bodies may have done already would be done again under another idempotency key.
                raise self.refused(
                    f"it renames where {scope.unbegun()} items of {scope.node!r} have still to begin; wait until every item has begun"
                )

    def _keep_key(self, scope: Scope, path: str, names: Names, keys: dict[str, str]) -> None:
        """The body that may have been in flight is run again with the idempotency key it had."""
        visit = scope.visits.get(scope.node, 0) + 1
        now = (names.path(path), names.node(path, scope.node))
        if now != (path, scope.node):
            keys[ticket_name(*now, visit)] = key_of(self.state, path, scope.node, visit)
            keys.pop(ticket_name(path, scope.node, visit), None)

    def _follow(self, names: Names, kinds: Mapping[tuple[str, str], str]) -> None:
        """Early decisions give a barrier's name, or its place."""
        made: dict[str, set[str]] = {}
        for (path, node), kind in kinds.items():
            if kind == "barrier":
                made.setdefault(node, set()).add(names.node(path, node))
                made[f"{path}.{node}" if path else node] = {
                    f"{names.path(path)}.{names.node(path, node)}" if path else names.node(path, node)
                }
        renamed = {old: new for old, (new, *more) in ((old, list(news)) for old, news in made.items()) if not more and new != old}
        self.barriers = {old: renamed.get(new, new) for old, new in self.barriers.items()} | {
            old: new for old, new in renamed.items() if old not in self.barriers.values()
        }

    # --- values -----------------------------------------------------------------------------------------------------
    def upgrade(self, graph: FlowGraph, chain: Sequence[Migration]) -> None:
        """Let the author's functions make the new values, and check them."""
        state, schema = self.state, graph.plan.schema
        values: Mapping[str, Any] = {key: plain(value) for key, value in state.root.values.items()}
        for migration in chain:
            if migration.state is None:
                continue
            try:
                values = migration.state(dict(values))
            except Exception as error:
                raise self.refused(f"its state function raised {type(error).__name__}: {error}") from error
            if not isinstance(values, Mapping):
                raise self.refused(f"its state function returned a {type(values).__name__}; return a mapping of all values")
        try:
            checked = schema.validate_input(graph.name, dict(values))
            new = {key: value for _kind, key, value in pack([["set", key, value] for key, value in checked.items()])[1]}
        except InputError as error:
            raise self.refused(f"what its state function returned does not fit the new state: {'; '.join(error.problems)}") from error
        except Exception as error:
            raise self.refused(f"what its state function returned cannot be stored: {first_line(error)}") from error
        bound = dict(_bound(state))
        for key, whose in bound.items():
            before, after = (held.get(key, _NOTHING) for held in (state.root.values, new))
            if encode([before] if before is not _NOTHING else []) != encode([after] if after is not _NOTHING else []):
                raise self.refused(f"it changes {key!r}, which {whose}; wait until that node is over")
        self._set(new)
        declared = graph.definition
        kept = {key: reducer for key, reducer in self.definition.get("keys", {}).items() if key in bound}
        self.definition |= {"keys": {**declared["keys"], **kept}, "reducer_versions": declared.get("reducer_versions", {})}

    def _set(self, values: dict[str, Any]) -> None:
        root, state = self.state.root, self.state
        state.stored -= sum(root.sizes.values())
        root.values = values
        root.sizes = {key: len(encode(value)) for key, value in values.items()}
        state.stored += sum(root.sizes.values())


_NOTHING: Final = object()


def _bound(state: RunState) -> Iterator[tuple[str, str]]:
    """The root's keys that something under way builds upon, and what that is."""
    for path, scope in state.scopes.items():
        if scope.phase == OPEN and len(scope.detail) > 2 and _owner(scope) is state.root:
            each = scope.detail[2]
            for key in [*(each["lent"] or {}).values(), *([each["over"]] if each["over"] is not None else [])]:
                yield key, f"the open node {scope.node!r} reads"
        if path and scope.phase != FAILED and scope.base is not None and _owner(scope) is state.root:
            for key in scope.ops:
                yield key, f"branch {path} has written"


def _owner(scope: Scope) -> Scope:
    while scope.base is not None:
        scope = scope.base
    return scope


def plain(value: Any) -> Any:
    """A stored value without the classes it was made of: models and dataclasses as dicts, enums as their values.

    >>> plain([ModelData("Address", {"city": "Ulm"})])
    [{'city': 'Ulm'}]
    """
    if isinstance(value, ModelData):
        return {name: plain(held) for name, held in {**value.fields, **(value.extra or {})}.items()}
    if isinstance(value, EnumData):
        return plain(value.value)
    if isinstance(value, dict):
        return {plain(key): plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(plain(held) for held in value)
    return value


# --- renaming the parts of a scope ------------------------------------------------------------------------------------


def _rename_detail(scope: Scope, path: str, own: Mapping[str, str], names: Names) -> None:
    if scope.phase == PARKED:
        ticket, details = scope.detail
        visit = int(ticket.rpartition("#")[2])
        targets = [own.get(target, target) for target in details["targets"]]
        scope.detail = [ticket_name(names.path(path), own.get(scope.node, scope.node), visit), {**details, "targets": targets}]
    elif scope.phase == OPEN:
        node, visit, *each = scope.detail
        inside = scope_path(path, node, visit)
        scope.detail = [own.get(node, node), visit, *({**one, "entry": names.node(inside, one["entry"])} for one in each)]
    elif scope.phase == RETRY:
        scope.detail = [*scope.detail[:2], _renamed_error(scope.detail[2], names)]
    elif scope.phase == FAILED:
        scope.detail = _renamed_error(scope.detail, names)


def scope_path(path: str, node: str, visit: int) -> str:
    """The path of the first child scope of an open node."""
    prefix = f"{path}." if path else ""
    return f"{prefix}{node}[0]" if visit == 1 else f"{prefix}{node}#{visit}[0]"


def _renamed_hop(hop: str, own: Mapping[str, str]) -> str:
    source, _, rest = hop.partition("->")
    target, bracket, key = rest.partition("[")
    return f"{own.get(source, source)}->{own.get(target, target)}{bracket}{key}"


def _renamed_error(error: Any, names: Names) -> Any:
    if not isinstance(error, dict):
        return error
    node, path = error.get("node", ""), error.get("path", "")
    made = {**error, **({"node": names.node(path, node), "path": names.path(path)} if "node" in error else {})}
    return made | ({"causes": [_renamed_error(cause, names) for cause in error["causes"]]} if "causes" in error else {})


# --- renaming the definition ------------------------------------------------------------------------------------------


def _inside(node: str, spec: Mapping[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, branch in enumerate(spec.get("branches", ())):
        yield (f"{path}." if path else "") + f"{node}[{index}]", branch


def _kinds(definition: Mapping[str, Any], path: str = "") -> Iterator[tuple[tuple[str, str], str]]:
    """The kind of every node, by its flow's path (as if every visit were the first, and every item too) and its name."""
    for node, spec in definition.get("nodes", {}).items():
        yield (path, node), spec.get("kind", "")
        for inside, branch in _inside(node, spec, path):
            yield from _kinds(branch, inside)


def _first_path(definition: Mapping[str, Any], path: str) -> str:
    """The path under which `_kinds` knows the flow of a scope."""
    made = []
    for piece in path.split(".") if path else ():
        node, _, index = piece.rstrip("]").partition("[")
        spec = definition.get("nodes", {}).get(node.partition("#")[0], {})
        place = int(index) if spec.get("kind") == "parallel" else 0
        made.append(f"{node.partition('#')[0]}[{place}]")
        inside = spec.get("branches", ())
        definition = inside[place] if place < len(inside) else {}
    return ".".join(made)


def _only_names_below(kinds: Mapping[tuple[str, str], str], names: Names, here: str) -> dict[str, str]:
    """New names of barriers in branches, whose decisions came up with the join: only names that mean one barrier."""
    prefix = f"{here}." if here else ""
    found: dict[str, set[str]] = {}
    for (inside, node), kind in kinds.items():
        if kind == "barrier" and inside != here and inside.startswith(prefix):
            found.setdefault(node, set()).add(names.node(inside, node))
    own = {node for inside, node in kinds if inside == here}
    return {node: next(iter(new)) for node, new in found.items() if len(new) == 1 and node not in own}


def _renamed_definition(flow: Mapping[str, Any], names: Names, path: str) -> dict[str, Any]:
    own = names.within(path)

    def now(node: str) -> str:
        return own.get(node, node)

    nodes = {}
    for node, spec in flow.get("nodes", {}).items():
        made = dict(spec)
        if "branches" in spec:
            made["branches"] = [_renamed_branch(branch, names, inside) for inside, branch in _inside(node, spec, path)]
        if "goto" in spec:
            made["goto"] = [now(target) for target in spec["goto"]]
        nodes[now(node)] = made
    edges = [{**edge, "from": now(edge["from"]), "to": now(edge["to"])} for edge in flow.get("edges", ())]
    made = {**flow, "nodes": nodes, "edges": edges, "entry": now(flow["entry"]), "ends": [now(node) for node in flow.get("ends", ())]}
    if "barriers" in flow:
        every = [(node, names.node(inside, node)) for (inside, node), kind in _kinds(flow) if kind == "barrier"]
        made["barriers"] = {new: flow["barriers"][node] for node, new in every if node in flow["barriers"]}
    return made


def _renamed_branch(branch: Mapping[str, Any], names: Names, inside: str) -> dict[str, Any]:
    """A branch that is a lone node has that node's name."""
    made = _renamed_definition(branch, names, inside)
    lone = len(branch.get("nodes", ())) == 1 and branch.get("name") in branch["nodes"]
    return {**made, "name": next(iter(made["nodes"]))} if lone else made
