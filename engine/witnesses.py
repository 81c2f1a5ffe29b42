"""What people decided, as the table of decisions has it, against what the checkpoints say they decided.

A checkpoint holds every vote it rests on, and is chained; the lines of the table are not.  So a line that was changed, taken out
or put in afterwards contradicts the checkpoint that used it.  Pure; a line that no checkpoint has used yet has no witness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from checkpoint_stores.codec import decode, encode
from checkpoint_stores.ops import Op
from checkpoint_stores.records import DecisionRecord, Problem
from engine.decisions import Decision


def votes_in(ops: Iterable[Op]) -> list[dict[str, Any]]:
    """The votes that a checkpoint rests on."""
    return [vote for op in ops if op[0] == "decision" for vote in op[2].get("votes") or [op[2]]]


def contradictions(
    run_id: str, used: Sequence[tuple[int, Sequence[dict[str, Any]]]], decisions: Sequence[DecisionRecord]
) -> Iterator[Problem]:
    """What does not agree, checkpoint by checkpoint.

    Args:
        used: the votes of each checkpoint that rests on some, with its number.
        decisions: the lines of the table.
    """
    known = [(_of_line(record), record) for record in decisions if record.consumed_seq is not None]
    for seq, votes in used:
        lines = [line for line, record in known if record.consumed_seq is not None and record.consumed_seq <= seq]
        for vote in votes:
            if _alone(vote) in lines:
                lines.remove(_alone(vote))
            else:
                yield Problem(run_id, seq, f"it rests on a decision of {vote.get('by')!r} that the table of decisions does not hold so")
    witnessed = {seq: [_alone(vote) for vote in votes] for seq, votes in used}
    for line, record in known:
        at = record.consumed_seq
        if at is not None and at in witnessed and line not in witnessed[at]:
            yield Problem(run_id, at, f"the table of decisions has one by {record.actor!r} as used by it, which it does not rest on")


def _alone(vote: dict[str, Any]) -> dict[str, Any]:
    """A vote without those that were cast beside it."""
    return {name: value for name, value in vote.items() if name != "votes"}


def _of_line(record: DecisionRecord) -> dict[str, Any]:
    """The line as a checkpoint would hold it."""
    made: dict[str, Any] = decode(encode(Decision.of_record(record).data()))
    return made
