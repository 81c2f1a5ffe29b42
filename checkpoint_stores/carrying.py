"""A run as a file, to be carried from one store to another: JSON lines, a version, digests.

Each line is ``[what, form, value]``; ``form`` and ``value`` are the codec's (see `checkpoint_stores.codec`).  The first line says what the
file is, then come ``run``, ``row``, ``snapshot``, ``barrier``, ``decision`` and ``effect`` lines, and last ``end``, with the number of
lines and the SHA-256 of all before it, so that a file that was cut or changed on its way is refused.  Whether the rows are what was
committed is told by their own chain, which is checked with the key of the store they come to.  Pure; knows no database.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import decode, encode
from checkpoint_stores.errors import CodecError, RunFileError
from checkpoint_stores.records import BarrierRecord, CancelRequest, DecisionRecord, EffectRecord, Row, RunRecord, Snapshot
from checkpoint_stores.soundness import Stored, problems_of

VERSION: Final = 1
"""Of the file.  A newer one is refused, an older one is read."""


class RunImage(NamedTuple):
    """All that a store keeps of one run."""

    run: RunRecord
    genesis: bytes
    """What the first row stands on."""
    definition: str
    """The graph's, as JSON text; "" where it is not kept."""
    cancel: CancelRequest | None
    rows: tuple[Row, ...]
    snapshots: tuple[Snapshot, ...]
    barriers: tuple[BarrierRecord, ...]
    decisions: tuple[DecisionRecord, ...]
    """Signals among them."""
    effects: tuple[EffectRecord, ...] = ()

    def stored(self) -> Stored:
        """What is to be checked."""
        run = self.run
        first_seq = 1 if run.parent_run_id is None else 0
        return Stored(run.run_id, self.genesis, first_seq, run.head_seq, run.head_digest, self.snapshots, self.rows)


def lines_of(image: RunImage, chain: Chain) -> Iterator[bytes]:
    """The lines of the file, each with its line break."""
    sha, number = hashlib.sha256(), 0
    for line in _lines(image, chain):
        sha.update(line)
        number += 1
        yield line
    yield _line("end", {"lines": number, "sha256": sha.hexdigest()})


def _lines(image: RunImage, chain: Chain) -> Iterator[bytes]:
    yield _line("trailmark run", {"version": VERSION, "run_id": image.run.run_id})
    cancel = None if image.cancel is None else image.cancel._asdict()
    run = {field: value for field, value in _fields(image.run).items() if field not in _OF_THE_STORE}
    yield _line("run", {**run, "genesis": image.genesis, "definition": image.definition, "cancel": cancel})
    for row in image.rows:
        yield _line("row", list(row[1:]))
    for snapshot in image.snapshots:
        yield _line("snapshot", [*snapshot[1:], chain.seal_snapshot(snapshot)])
    for barrier in image.barriers:
        yield _line("barrier", _fields(barrier))
    for decision in image.decisions:
        yield _line("decision", _fields(decision))
    for effect in image.effects:
        yield _line("effect", _fields(effect))


_OF_THE_STORE: Final = frozenset({"owner", "lease_expires_at", "orphaned"})
"""What says who drives the run where it was; where it comes to nobody does."""


def image_of(lines: Iterable[bytes], chain: Chain) -> RunImage:
    """Read a file, and check all of it with the key of the store it comes to.

    Raises RunFileError, which names the line or the checkpoint.
    """
    parts: dict[str, list[Any]] = {what: [] for what in ("trailmark run", "run", "row", "snapshot", "barrier", "decision", "effect")}
    sha, number, end = hashlib.sha256(), 0, None
    for raw in lines:
        if not raw.strip():
            continue
        line = raw.rstrip(b"\r\n") + b"\n"
        what, value = _parts(line, number + 1)
        if number == 0 and what != "trailmark run":
            raise RunFileError(1, "it is no file of a run (`trailmark runs export` writes one)")
        if what == "end":
            end = value
            break
        if what not in parts:
            raise RunFileError(number + 1, f"it says {what!r}, which this version does not know; install a newer trailmark")
        if what == "trailmark run" and value.get("version", 0) > VERSION:
            raise RunFileError(1, f"it is of version {value['version']}, this trailmark reads up to {VERSION}; install a newer one")
        parts[what].append(value)
        sha.update(line)
        number += 1
    if end is None:
        raise RunFileError(number, "the file was cut: its last line is missing")
    if end != {"lines": number, "sha256": sha.hexdigest()}:
        raise RunFileError(number + 1, "the file was changed or cut on its way: its lines are not those that were written")
    try:
        image, seals = _image(parts)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise RunFileError(2, f"its parts do not fit together: {error}") from error
    for snapshot, seal in zip(image.snapshots, seals, strict=True):
        if chain.seal_snapshot(snapshot) != seal:
            raise RunFileError(0, f"the snapshot at checkpoint {snapshot.seq} was changed, or the store's chain key is another")
    problems = problems_of(chain, image.stored())
    if problems:
        raise RunFileError(0, f"checkpoint {problems[0].seq}: {problems[0].reason}")
    return image


def _image(parts: dict[str, list[Any]]) -> tuple[RunImage, list[bytes]]:
    (stated,) = parts["run"]
    genesis, definition, cancel = (stated.pop(name) for name in ("genesis", "definition", "cancel"))
    run = RunRecord(**stated)
    seals = [values[-1] for values in parts["snapshot"]]
    image = RunImage(
        run,
        genesis,
        definition,
        None if cancel is None else CancelRequest(**cancel),
        tuple(Row(run.run_id, *values) for values in parts["row"]),
        tuple(Snapshot(run.run_id, *values[:-1]) for values in parts["snapshot"]),
        tuple(BarrierRecord(**values) for values in parts["barrier"]),
        tuple(DecisionRecord(**values) for values in parts["decision"]),
        tuple(EffectRecord(**values) for values in parts["effect"]),
    )
    if not image.rows or {each.run_id for parts in (image.barriers, image.decisions, image.effects) for each in parts} - {run.run_id}:
        raise ValueError("it has no checkpoint, or parts of another run")
    return image, seals


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _line(what: str, value: Any) -> bytes:
    encoded = encode(value)
    return b'["%b",%b,%b]\n' % (what.encode(), encoded[:1], encoded[1:])


def _parts(line: bytes, number: int) -> tuple[str, Any]:
    try:
        what, form, value = orjson.loads(line)
        return what, decode(str(form).encode() + orjson.dumps(value))
    except (ValueError, TypeError, CodecError) as error:
        raise RunFileError(number, f"it cannot be read: {error}") from error
