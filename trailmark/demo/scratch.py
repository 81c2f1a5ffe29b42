"""A scratch site directory in which something is wrong, so that the demo's audit has something to find.

It holds copies: nothing of the environment they were taken from is touched.  Knows nothing of flows or of the audit's
checks; what is wrong in it is real, down to the last byte, and is told to whoever looks on.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from trailmark.demo.audit_checks import Installed, record_entries

PREFIX = "demo-"
"""How the names of the distributions in the scratch site begin."""

UNREADABLE = "demo_unreadable-1.0.dist-info"


def make_scratch_site(folder: Path, installed: Iterable[Installed]) -> list[str]:
    """Fill ``folder`` with a damaged copy of the smallest of the distributions, and with one that cannot be read.

    Returns what is wrong there, one thing a line.
    """
    (folder / UNREADABLE).mkdir(parents=True)
    (folder / UNREADABLE / "METADATA").write_bytes(b"\xff\xfeMetadata-Version: 2.1\nName: demo-unreadable\nVersion: 1.0\n")
    told = [f"{UNREADABLE}: its METADATA is no text"]
    # Why the name breaks a tie: the same environment shall always give the same demo.
    donor = min(_copyable(installed), default=None, key=lambda pair: (pair[0], pair[1]["name"]))
    return told if donor is None else [*_damaged_copy(donor[1], folder), *told]


def is_scratch(distribution: str) -> bool:
    """Whether a finding is about a distribution of the scratch site.

    >>> is_scratch("demo-copy-of-six"), is_scratch(UNREADABLE), is_scratch("six")
    (True, True, False)
    """
    return distribution.replace("_", "-").startswith(PREFIX)


def _copyable(installed: Iterable[Installed]) -> Iterator[tuple[int, Installed]]:
    """Distributions with code of their own that can be copied, each with the bytes of its files."""
    for one in installed:
        paths = _paths(one)
        if _victim(one, paths) is not None:
            yield sum((_root(one) / path).stat().st_size for path in paths), one


def _root(one: Installed) -> Path:
    return Path(one["folder"]).parent


def _paths(one: Installed) -> list[str]:
    """What a distribution has within its site directory; scripts and the like stand elsewhere, byte code may be made anew."""
    entries = sorted({entry.path for entry in record_entries(one["folder"]) or []})
    inside = (path for path in entries if ".." not in PurePosixPath(path).parts and not Path(path).is_absolute())
    return [path for path in inside if not path.endswith(".pyc") and (_root(one) / path).is_file()]


def _victim(one: Installed, paths: Iterable[str]) -> str | None:
    """The file of which a byte will be changed."""
    return next((path for path in paths if path.endswith(".py") and (_root(one) / path).stat().st_size), None)


def _damaged_copy(one: Installed, folder: Path) -> list[str]:
    name = canonicalize_name(one["name"])
    copy = f"{PREFIX}copy-of-{name}"
    old, new = Path(one["folder"]).name, f"{copy.replace('-', '_')}-{one['version']}.dist-info"
    paths = _paths(one)
    lines = []
    for path in paths:
        target = path.replace(old, new, 1) if path.startswith(f"{old}/") else path
        content = (_root(one) / path).read_bytes()
        if target == f"{new}/METADATA":
            content = _with_headers(content, f"Name: {copy}", f"Requires-Dist: {name}>=9999")
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_bytes(content)
        if target != f"{new}/RECORD":
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f'"{target}",sha256={digest},{len(content)}\n')
    # A RECORD in which everything fits, as an installer would write it: what is changed afterwards is all that is wrong.
    (folder / new / "RECORD").write_text("".join(lines) + f"{new}/RECORD,,\n", encoding="utf-8")
    victim = _victim(one, paths)
    assert victim is not None  # noqa: S101 - only such distributions are copied
    content = (folder / victim).read_bytes()
    (folder / victim).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    return [
        f"{copy}: one byte of {victim} changed",
        f"{copy}: declares that it needs {name}>=9999",
    ]


def _with_headers(metadata: bytes, name: str, *others: str) -> bytes:
    r"""``metadata`` under another name and with more headers.

    >>> _with_headers(b"Metadata-Version: 2.1\nName: six\nVersion: 1\n\nName: no header\n", "Name: copy", "Requires-Dist: six")
    b'Metadata-Version: 2.1\nName: copy\nRequires-Dist: six\nVersion: 1\n\nName: no header\n'
    """
    lines = metadata.split(b"\n")
    place = next(index for index, line in enumerate(lines) if line.lower().startswith(b"name:"))
    return b"\n".join([*lines[:place], name.encode(), *(other.encode() for other in others), *lines[place + 1 :]])
