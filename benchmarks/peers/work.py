"""What is measured: the workloads, their sizes, and how a time becomes a figure.  Knows no system."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One row of the table.

    ``act`` is the method of `peer.Peer` that does it, over a place of this ``kind``.  ``result`` is what must come out, ``rows`` how
    many durable rows must be there at the least.
    """

    key: str
    title: str
    unit: str
    act: str
    kind: str
    sizes: dict[str, int]
    quick: dict[str, int]
    rounds: int = 5
    settings: str = ""
    is_warmed: bool = True

    def result(self, sizes: dict[str, int]) -> int:
        match self.act:
            case "crowd":
                return sizes["runs"] * sizes["steps"]
            case "loop" | "store_log" | "store_plain":
                return sizes["steps"]
            case _:
                return next(iter(sizes.values()))

    def rows(self, sizes: dict[str, int]) -> int:
        return self.result(sizes) if self.kind in {"sqlite", "postgres"} else 0

    def figure(self, seconds: float, size: int, sizes: dict[str, int]) -> float:
        """The figure of a round that took ``seconds`` and left ``size`` bytes behind."""
        match self.unit:
            case "us/step":
                return seconds / self.result(sizes) * 1e6
            case "ms":
                return seconds * 1e3
            case "MB":
                return size / 1e6
            case _:
                return self.result(sizes) / seconds


FULL = "WAL, synchronous=FULL; each step committed before the next starts"
FSYNC = "fsync and synchronous_commit on; each step committed before the next starts"

WORKS = [
    Work("loop_bare", "in-memory loop, 2,000 async steps, no checkpoints wanted", "us/step", "loop", "bare",
         {"steps": 2000}, {"steps": 200}, settings="trailmark has no such mode: it keeps its memory store"),
    Work("loop_memory", "in-memory loop, 2,000 async steps, checkpoints kept in memory", "us/step", "loop", "memory",
         {"steps": 2000}, {"steps": 200}),
    Work("fan_bare", "fan-out to 100 async branches and join, in memory", "ms", "fan", "bare",
         {"branches": 100}, {"branches": 20}, rounds=9, settings="as the first row"),
    Work("loop_sqlite", "durable loop in SQLite, 400 async steps, a lone run", "us/step", "loop", "sqlite",
         {"steps": 400}, {"steps": 50}, rounds=9, settings=FULL),
    Work("crowd_sqlite", "200 concurrent runs x 20 durable steps, SQLite", "steps/s", "crowd", "sqlite",
         {"runs": 200, "steps": 20}, {"runs": 20, "steps": 5}, rounds=3, settings=FULL),
    Work("fan_sqlite", "fan-out to 100 async branches and join, durable in SQLite", "ms", "fan", "sqlite",
         {"branches": 100}, {"branches": 20}, rounds=9, settings=FULL),
    Work("store_sqlite", "1,000 steps, each appends 1 KB, beside a 20 KB key: stored", "MB", "store_log", "sqlite",
         {"steps": 1000, "size": 1000, "constant": 20_000}, {"steps": 100, "size": 1000, "constant": 20_000},
         rounds=1, settings="all files of the closed database", is_warmed=False),
    Work("plain_sqlite", "the same, the list kept as tutorials first show it: stored", "MB", "store_plain", "sqlite",
         {"steps": 1000, "size": 1000, "constant": 20_000}, {"steps": 100, "size": 1000, "constant": 20_000},
         rounds=1, settings="all files of the closed database", is_warmed=False),
    Work("approve_sqlite", "500 runs wait for a person; all approved, and run to their end", "runs/s", "approve", "sqlite",
         {"runs": 500}, {"runs": 20}, rounds=3, settings=FULL),
    Work("go_on_sqlite", "from the decision to the next node, in one process, SQLite", "ms", "go_on", "sqlite",
         {"times": 15}, {"times": 3}, rounds=9, settings=FULL),
    Work("loop_postgres", "durable loop in PostgreSQL, 400 async steps, a lone run", "us/step", "loop", "postgres",
         {"steps": 400}, {"steps": 50}, rounds=7, settings=FSYNC),
    Work("crowd_postgres", "200 concurrent runs x 20 durable steps, PostgreSQL", "steps/s", "crowd", "postgres",
         {"runs": 200, "steps": 20}, {"runs": 20, "steps": 5}, rounds=3, settings=FSYNC),
]  # fmt: skip

FLOOR, OURS = "floor", "trailmark"

SYSTEMS = {
    FLOOR: "peers.peer_floor:Floor",
    OURS: "peers.peer_trailmark:Trailmark",
    "langgraph": "peers.peer_langgraph:LangGraph",
    "pydantic-graph": "peers.peer_pydantic_graph:PydanticGraph",
    "burr": "peers.peer_burr:Burr",
    "dbos": "peers.peer_dbos:Dbos",
}
"""The columns of the table, in order, and the class of each (imported in its own process only)."""
