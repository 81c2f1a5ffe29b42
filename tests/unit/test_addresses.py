"""A plain SQLite URL is understood without SQLAlchemy, and just as SQLAlchemy understands it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from checkpoint_stores.errors import StoreUnavailableError
from checkpoint_stores.sql import addresses
from checkpoint_stores.sql.addresses import CoreAddress, PlainFile, address_of

PREFIXES = ("sqlite:///", "sqlite+aiosqlite:///", "sqlite:////", "sqlite+aiosqlite:////")
PARTS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(
        [
            "/",
            "?",
            "%20",
            "%",
            "%2F",
            "+",
            " ",
            "@",
            ":",
            "#",
            "..",
            "~",
            ":memory:",
            "%3Amemory:",
            "mode=memory",
            "mode%3dmemory",
            "ü",
            "\n",
        ]
    ),
)


def told(url: str) -> Any:
    """What an address says of itself, or how it is refused."""
    try:
        address = address_of(url)
    except StoreUnavailableError as error:
        return error.url, str(error)
    return address.url, address.is_file, address.for_core()


def told_by_core(url: str) -> Any:
    """The same where SQLAlchemy is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "_plain", lambda _: None)
        return told(url)


@given(st.sampled_from(PREFIXES), st.lists(PARTS, max_size=5).map("".join))
@example("sqlite:///", "")
@example("sqlite:///", "a@b:c/d")
def test_a_sqlite_url_is_the_same_address_with_and_without_sqlalchemy(prefix: str, path: str) -> None:
    assert told(prefix + path) == told_by_core(prefix + path)


@given(st.lists(PARTS, max_size=5).map("".join))
def test_a_plain_file_is_opened_where_sqlalchemy_would_open_it(path: str) -> None:
    try:
        address = address_of(f"sqlite:///{path}")
    except StoreUnavailableError:
        return
    if isinstance(address, PlainFile):
        assert address.arguments()[0] == CoreAddress(address.for_core()).arguments()[0]


@pytest.mark.parametrize(
    "url", ["sqlite:///runs.db", "sqlite+aiosqlite:////var/lib/my runs/a+b.db", "sqlite:///Bücher/läufe (1).db", "sqlite:///a%20b"]
)
def test_an_ordinary_path_does_not_ask_sqlalchemy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sa, "make_url", None)
    assert isinstance(address_of(url), PlainFile)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:///file:runs.db?mode=ro&uri=true", "sqlite:///runs.db?timeout=9", "postgresql+asyncpg://ana:secret@db/runs",
        "postgres://db/runs",
    ],
)  # fmt: skip
def test_whatever_else_is_a_database_is_left_to_sqlalchemy(url: str) -> None:
    address = address_of(url)
    assert isinstance(address, CoreAddress)
    assert address.is_file == url.startswith("sqlite")
    assert "secret" not in address.url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("runs.db", "that is no database URL; try sqlite+aiosqlite:///runs.db"),
        (None, "that is no database URL; try sqlite+aiosqlite:///runs.db"),
        ("mysql://db/runs", "mysql is not supported; use postgresql+asyncpg or sqlite+aiosqlite"),
        ("sqlite://", "a SQLite database in memory belongs to one connection"),
        ("sqlite:///:memory:", "a SQLite database in memory belongs to one connection"),
        ("sqlite:///file:x?mode=memory&uri=true", "a SQLite database in memory belongs to one connection"),
    ],
)
def test_what_is_no_database_of_ours_is_refused_by_its_name(url: Any, says: str) -> None:
    with pytest.raises(StoreUnavailableError) as refused:
        address_of(url)
    assert says in str(refused.value)
