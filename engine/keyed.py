"""One run for each key: whether a run that is already there is the one that is being started.

Reads stored rows, compares inputs.  Starts nothing and ends nothing; knows no plan and no user code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from checkpoint_stores.codec import pack, unpack
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import RunRecord
from engine.errors import RunKeyConflictError
from engine.loading import load_state

IfExists = Literal["join", "supersede", "error"]
"""What `start` does with a key that already names a run.

``join``: it is that run, if it was started with the same input.  ``supersede``: the same, but a run with another input, or one that
failed or was cancelled, gives the key up.  ``error``: RunExistsError, whatever its input.
"""

INPUT: str = "input"
"""Where the details of a run's first attempt hold the fingerprint of what it was started with."""


def fingerprint(given: Mapping[str, Any]) -> str:
    """A digest of what the caller gave: the same input has the same one, in every process.

    Defaults are no part of it: one that is made anew each time (a time, an id) makes no other input.

    >>> fingerprint({"vendor": "ACME", "amount": 5}) == fingerprint({"amount": 5, "vendor": "ACME"})
    True
    """
    payload, _ops = pack([["set", key, given[key]] for key in sorted(given)])
    return hashlib.sha256(payload).hexdigest()


async def check_same_input(store: CheckpointStore, record: RunRecord, given: Mapping[str, Any]) -> None:
    """Raises RunKeyConflictError where the run was started with another input than ``given``."""
    first = None
    async for row in store.history(record.run_id):
        first = unpack(row.payload) if row.kind == "start" else None
        break
    if first is None:  # pruned away; what its details said is in every later state
        stored, values = (await load_state(store, record.run_id)).details.get(INPUT), {}
    else:
        stored = next((op[2].get(INPUT) for op in first if op[0] == "attempt"), None)
        values = {op[1]: op[2] for op in first if op[0] == "set"}
    if stored == fingerprint(given):
        return
    other = [key for key, value in given.items() if key in values and fingerprint({key: value}) != fingerprint({key: values[key]})]
    raise RunKeyConflictError(record.run_key or "", record.run_id, record.status, other)
