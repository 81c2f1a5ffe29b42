"""Where a store is: what people type, made a URL.  Pure; opens nothing."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_STORE: Final = "sqlite+aiosqlite:///trailmark.db"
"""The store where neither --store nor TRAILMARK_STORE names one: a file in the working folder."""

_SQLITE: Final = ("sqlite+aiosqlite:///", "sqlite:///")


def store_url(given: str) -> str:
    """The URL of a store; a bare path is a SQLite file.

    >>> store_url("runs.db"), store_url("postgresql+asyncpg://db/runs")
    ('sqlite+aiosqlite:///runs.db', 'postgresql+asyncpg://db/runs')
    """
    return given if "://" in given else f"sqlite+aiosqlite:///{given}"


def sqlite_file(url: str) -> str | None:
    """The file of a SQLite URL; None for any other store.

    >>> sqlite_file("sqlite+aiosqlite:////var/runs.db?timeout=9"), sqlite_file("memory://")
    ('/var/runs.db', None)
    """
    for prefix in _SQLITE:
        if url.startswith(prefix):
            return url.removeprefix(prefix).partition("?")[0]
    return None


def without_password(url: str) -> str:
    """The URL as it may be shown.

    >>> without_password("postgresql+asyncpg://ana:secret@db/runs")
    'postgresql+asyncpg://ana:***@db/runs'
    """
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", url)
