"""Which run a part of its id means.

Ids begin with their time, so runs started together share their first characters; their last ones are random.
What was found in, the one that is meant or a typed error out.  Knows no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final, TypeVar

from checkpoint_stores.errors import AmbiguousRunError, RunNotFoundError

Found = TypeVar("Found")

MOST_CANDIDATES: Final = 5
"""How many runs an error names where several fit."""


def the_one(given: str, found: Mapping[str, Found]) -> Found:
    """The only run of ``found``, which holds by id the runs that fit.

    Raises RunNotFoundError where there is none, AmbiguousRunError where there are several.
    """
    if not found:
        raise RunNotFoundError(given)
    if len(found) > 1:
        raise AmbiguousRunError(given, tuple(islice(found, MOST_CANDIDATES)))
    return next(iter(found.values()))
