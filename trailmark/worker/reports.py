"""What a worker says of its work: one report for each thing that happened.  Data only."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Happening: TypeAlias = Literal["began", "taken", "let_go", "left_alone", "quarantined", "store_away", "store_back", "draining", "ended"]


class Report(NamedTuple):
    """One thing that happened in a worker."""

    what: Happening
    """began, draining, ended: of the worker; taken, let_go, left_alone, quarantined: of a run; store_away, store_back: of the store."""
    run_id: str = ""
    flow: str = ""
    status: str = ""
    """let_go: the run's status now."""
    text: str = ""
    """Why, or how many; for people."""
