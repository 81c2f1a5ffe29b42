"""Where a database is: what a user's URL means.

A plain SQLite file is understood here, without SQLAlchemy, just as SQLAlchemy understands it; anything else is left to it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from checkpoint_stores.errors import StoreUnavailableError

if TYPE_CHECKING:
    import sqlalchemy as sa

_PLAIN: Final = re.compile(r"sqlite(?:\+aiosqlite)?:///([^?]+)")
_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class PlainFile(NamedTuple):
    """A SQLite file, given by its path and nothing else."""

    path: str
    url: str
    """How people are told it."""

    @property
    def is_file(self) -> bool:
        return True

    def arguments(self) -> tuple[str, dict[str, Any]]:
        """What the driver is given to connect: a path and options."""
        return os.path.abspath(self.path), {}  # noqa: PTH100 - Path.absolute() leaves ".." and a doubled "/" where they are

    def for_core(self) -> sa.URL:
        """The address in SQLAlchemy's words."""
        import sqlalchemy as sa

        return sa.make_url(self.url)


class CoreAddress(NamedTuple):
    """Anything else: a SQLite file with options, or a PostgreSQL database."""

    core: sa.URL

    @property
    def url(self) -> str:
        return self.core.render_as_string(hide_password=True)

    @property
    def is_file(self) -> bool:
        return self.core.get_backend_name() == "sqlite"

    def arguments(self) -> tuple[str, dict[str, Any]]:
        args, options = self.core.get_dialect()().create_connect_args(self.core)
        return next(iter(args), ""), dict(options)

    def for_core(self) -> sa.URL:
        return self.core


Address: TypeAlias = PlainFile | CoreAddress


def address_of(url: str) -> Address:
    """The address a user's URL means, with the driver that is used; StoreUnavailableError where it is none of ours."""
    return _plain(url) or CoreAddress(_parsed(url))


def _plain(url: object) -> PlainFile | None:
    """The file of a plain URL; None where SQLAlchemy is to be asked, which also knows what is wrong with it."""
    found = _PLAIN.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        return None
    path = unquote(found[1])
    told = f"{_DRIVERS['sqlite']}:///{quote(path, safe=' +/')}"
    return None if ":memory:" in path or "mode=memory" in told else PlainFile(path, told)


def _parsed(url: str) -> sa.URL:
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (sa.exc.ArgumentError, ValueError, TypeError):
        raise StoreUnavailableError(
            str(url).partition("://")[0], f"that is no database URL; try sqlite+aiosqlite:///{_file_in(url)}"
        ) from None
    name = parsed.render_as_string(hide_password=True)
    if parsed.drivername not in {*_DRIVERS, *_DRIVERS.values()}:
        raise StoreUnavailableError(name, f"{parsed.drivername} is not supported; use {' or '.join(sorted(set(_DRIVERS.values())))}")
    if backend == "sqlite" and (parsed.database in (None, "", ":memory:") or "mode=memory" in name or ":memory:" in str(parsed.database)):
        raise StoreUnavailableError(name, "a SQLite database in memory belongs to one connection; use MemoryCheckpointStore()")
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _file_in(url: object) -> str:
    """The file that was meant, where just a path was given."""
    return str(url) if url and "://" not in str(url) else "runs.db"
