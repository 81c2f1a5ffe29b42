"""The process of one system: does one workload, a round for every line on its standard input, and answers each with a line of JSON.

    python -m peers.child NAME KEY        (started by `peers.compare`)

A round has a place, an event loop and connections of its own, and does the work once at its quick size before it counts; between
rounds nothing runs here.  Ends with its standard input, and
by itself where a round takes longer than it may.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from peers.peer import CannotError, Peer, Place
from peers.witness import Witness, bytes_of, rows
from peers.work import SYSTEMS, WORKS, Work

STEPS_SEEN = 10
"""Steps of the loop in which a witness looks on."""


def main(name: str, key: str) -> None:
    # What systems print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    work = next(work for work in WORKS if work.key == key)
    for line in sys.stdin:
        told = json.loads(line)
        faulthandler.dump_traceback_later(told["seconds"], exit=True)
        answers.write(json.dumps(_answer(name, work, told)) + "\n")
        faulthandler.cancel_dump_traceback_later()


def _answer(name: str, work: Work, told: dict[str, Any]) -> dict[str, Any]:
    try:
        module, _, thing = SYSTEMS[name].partition(":")
        kind = getattr(importlib.import_module(module), thing)
        return asyncio.run(_round(kind, work, Place(**told["place"]), told["sizes"], looks=told["looks"]))
    except CannotError as reason:
        return {"cannot": str(reason)}
    except BaseException as error:  # noqa: BLE001 - a system that fails says so in its cell, and the suite goes on
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


async def _round(kind: type[Peer], work: Work, place: Place, sizes: dict[str, int], *, looks: bool) -> dict[str, Any]:
    table = kind.tables.get(place.kind, "") if place.is_durable else ""
    witness = Witness(place)
    peer = kind(place, work.act, witness.look if looks else _nothing)
    await peer.set_up()
    try:
        asked = await peer.asked()
        least = work.rows(sizes)
        if looks and table:
            witness.open(table)
            await _checked(peer.loop(STEPS_SEEN), STEPS_SEEN)
            asked["committed before the next step starts"] = "yes, seen" if witness.saw_each_step_first else "NO"
            witness.close()
            least += STEPS_SEEN
        elif work.is_warmed:
            await _checked(getattr(peer, work.act)(**work.quick), work.result(work.quick))
            least += work.rows(work.quick)
        done = await _checked(getattr(peer, work.act)(**sizes), work.result(sizes))
    finally:
        await peer.tear_down()
    table = (kind.branches if work.act == "fan" and table else "") or table
    found = rows(place, table) if table else 0
    if table and found < least:
        raise AssertionError(f"{least} durable steps left only {found} rows in {table}")
    size = bytes_of(place.url) if place.kind == "sqlite" else 0
    return {**asdict(done), "rows": found, "bytes": size, "asked": asked, "settings": kind.settings}


def _nothing() -> None: ...


async def _checked(doing: Any, expected: int) -> Any:
    done = await doing
    if done.result != expected:
        raise AssertionError(f"the result is {done.result}, not {expected}")
    return done


if __name__ == "__main__":
    main(*sys.argv[1:])
