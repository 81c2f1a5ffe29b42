"""What can be wrong with a Python environment, checked against the metadata its installers left behind.

Plain functions over plain data: a distribution is ``{"name", "version", "folder"}``, a finding is
``{"id", "severity", "distribution", "message"}``.  Knows nothing of flows, of other checks' results or of reports.

Law: every answer is in one order, whatever order the file system lists things in; asking twice gives equal answers.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import site as python_site
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution
from pathlib import Path
from typing import NamedTuple, TypeAlias

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

Installed: TypeAlias = dict[str, str]
"""One installed distribution: its ``name``, ``version`` and metadata ``folder`` (``.../click-8.1.dist-info``)."""

Finding: TypeAlias = dict[str, str]
"""One thing that is wrong: a stable ``id`` (``kind:distribution``), ``severity``, ``distribution`` and ``message``."""

RISK: Mapping[str, int] = {"high": 25, "medium": 5, "low": 1}
"""How much one finding of each severity adds to the risk score; worst first."""

TRUSTED_HASHES = frozenset({"sha256", "sha384", "sha512"})
"""What the wheel specification accepts in a RECORD."""

FILE_FAULTS: Mapping[str, tuple[str, str]] = {
    "tampered": ("high", "files that do not match its RECORD"),
    "missing": ("medium", "missing files"),
    "unreadable": ("medium", "files that cannot be read"),
}
"""The fates of a file that make a finding: its severity and what the message says."""

FATES = ("verified", "unhashed", *FILE_FAULTS)
"""What can become of a file that a RECORD lists."""

NAMED_FILES = 5
"""How many files one finding names before it only counts."""


class UnreadableMetadataError(Exception):
    """Some distributions describe themselves in a way that cannot be read; ``unreadable`` maps folder name to reason."""

    def __init__(self, unreadable: Mapping[str, str]) -> None:
        self.unreadable = dict(unreadable)
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.unreadable.items())
        super().__init__(f"{len(self.unreadable)} distribution(s) cannot be read: {listed}")


class RecordEntry(NamedTuple):
    """One line of a RECORD: a path (relative to the site directory) and ``algorithm=digest``, or ""."""

    path: str
    hash: str


class FileCheck(NamedTuple):
    """What became of the files of one distribution."""

    counts: dict[str, int]
    """Files by fate; every one of `FATES` is there."""
    findings: list[Finding]


def finding(kind: str, severity: str, distribution: str, message: str) -> Finding:
    """Make a finding.

    >>> finding("unlicensed", "low", "demo", "no licence")["id"]
    'unlicensed:demo'
    """
    return {"id": f"{kind}:{distribution}", "severity": severity, "distribution": distribution, "message": message}


# --- what is installed ------------------------------------------------------------------------------------------------


def default_sites() -> list[str]:
    """The site directories this interpreter imports from, in import order."""
    places = [*python_site.getsitepackages(), *([python_site.getusersitepackages()] if python_site.ENABLE_USER_SITE else [])]
    return [place for place in dict.fromkeys(places) if place in sys.path and Path(place).is_dir()]


def read_sites(sites: Iterable[str]) -> tuple[list[Installed], dict[str, str]]:
    """Read every distribution of the site directories: (readable ones by name, reason by folder name of the others).

    Raises OSError where a site directory itself cannot be listed.
    """
    installed: list[Installed] = []
    unreadable: dict[str, str] = {}
    for place in dict.fromkeys(Path(site).resolve() for site in sites):  # lib64 is often another name of lib
        folders = (entry for entry in place.iterdir() if entry.suffix in (".dist-info", ".egg-info"))
        for folder in sorted(folders):
            try:
                installed.append(_read(folder))
            except (ValueError, OSError, csv.Error) as error:
                unreadable[folder.name] = str(error)
    # Why stable matters: of two with one name, the one that Python imports stays in front.
    return sorted(installed, key=lambda one: canonicalize_name(one["name"])), unreadable


def unreadable_finding(folder: str, reason: str) -> Finding:
    """What an unreadable distribution is reported as."""
    return finding("unreadable-metadata", "high", folder, f"cannot be read: {reason}")


def _read(folder: Path) -> Installed:
    headers = _headers(folder)
    name, version = headers.get("Name"), headers.get("Version")
    if not name or not version:
        raise ValueError("its metadata has no Name or no Version")
    record_entries(folder)  # Why: a RECORD that cannot be parsed shall be known now, not in the middle of a check.
    return {"name": name, "version": version, "folder": str(folder)}


def _headers(folder: str | Path) -> Message:
    # Old distributions have PKG-INFO in a folder, or are that file themselves: then its path within itself is "".
    distribution = Distribution.at(folder)
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or distribution.read_text("")
    if not text:
        raise ValueError("it has no METADATA")
    return HeaderParser().parsestr(text)


def record_entries(folder: str | Path) -> list[RecordEntry] | None:
    """The lines of a distribution's RECORD; None where its installer left none.

    Raises ValueError (UnicodeDecodeError among them) or csv.Error where it cannot be read.
    """
    text = Distribution.at(folder).read_text("RECORD")
    if text is None:
        return None
    entries = []
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        if not row:
            continue
        if len(row) != 3 or not row[0] or "\0" in row[0]:
            raise ValueError(f"line {number} of its RECORD is not path,hash,size")
        entries.append(RecordEntry(row[0], row[1]))
    return entries


# --- files ------------------------------------------------------------------------------------------------------------


def check_files(one: Installed) -> FileCheck:
    """Compare every file of a distribution with the hash its RECORD holds; reads each file once, in pieces."""
    entries = record_entries(one["folder"])
    counts = dict.fromkeys(FATES, 0)
    if entries is None:
        return FileCheck(counts, [finding("no-record", "medium", one["name"], "has no RECORD: its files cannot be verified")])
    at_fault: dict[str, list[str]] = {kind: [] for kind in FILE_FAULTS}
    root = Path(one["folder"]).parent
    for entry in sorted(entries):
        fate = file_fate(root / entry.path, entry.hash)
        counts[fate] += 1
        if fate in at_fault:
            at_fault[fate].append(entry.path)
    findings = [
        finding(kind, severity, one["name"], f"{says}: {_named(at_fault[kind])}")
        for kind, (severity, says) in FILE_FAULTS.items()
        if at_fault[kind]
    ]
    return FileCheck(counts, findings)


def file_fate(path: Path, expected: str) -> str:
    """Whether a file is ``verified``, ``unhashed``, ``missing``, ``tampered`` or ``unreadable``.

    A missing file that was never hashed counts as unhashed: byte code may be deleted at any time.
    """
    algorithm, _, digest = expected.partition("=")
    if algorithm not in TRUSTED_HASHES:
        return "unhashed"
    if not path.is_file():  # Why: not exists(); reading a device or a pipe that a RECORD names would never end.
        return "missing"
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, algorithm).digest()
    except OSError:
        return "unreadable"
    return "verified" if base64.urlsafe_b64encode(actual).rstrip(b"=").decode() == digest.rstrip("=") else "tampered"


def size_on_disk(one: Installed) -> int | None:
    """Bytes of the files that a distribution's RECORD lists; None where it has no RECORD."""
    entries = record_entries(one["folder"])
    if entries is None:
        return None
    root = Path(one["folder"]).parent
    paths = (root / path for path in {entry.path for entry in entries})
    return sum(path.stat().st_size for path in paths if path.is_file())


def _named(paths: Sequence[str]) -> str:
    rest = len(paths) - NAMED_FILES
    return ", ".join(paths[:NAMED_FILES]) + (f" and {rest} more" if rest > 0 else "")


# --- licences ---------------------------------------------------------------------------------------------------------


def licence_of(one: Installed) -> str:
    """The licence a distribution declares, in its own words; "" where it declares none."""
    return declared_licence(_headers(one["folder"]))


def declared_licence(headers: Message) -> str:
    """The newest way of declaring counts most: License-Expression, then a short License, then classifiers.

    >>> headers = Message()
    >>> headers["License"] = "UNKNOWN"
    >>> headers["Classifier"] = "License :: OSI Approved :: MIT License"
    >>> declared_licence(headers)
    'MIT License'
    """
    for header in ("License-Expression", "License"):
        text = str(headers.get(header, "")).strip()
        # Why: many distributions paste the whole text of their licence into the field.
        if text and text.upper() != "UNKNOWN" and "\n" not in text and len(text) <= 80:
            return text
    classifiers = (str(value) for value in headers.get_all("Classifier", []))
    return " / ".join(sorted({value.rpartition("::")[2].strip() for value in classifiers if value.startswith("License ::")}))


def unlicensed_finding(name: str) -> Finding:
    """What a distribution without a licence is reported as."""
    return finding("unlicensed", "low", name, "declares no licence")


# --- dependencies -----------------------------------------------------------------------------------------------------


def check_dependencies(installed: Sequence[Installed]) -> list[Finding]:
    """Whether every declared dependency is installed in a version that fits, on this interpreter and platform.

    Dependencies of extras count where another distribution asks for the extra.  Where a name is installed twice, the one
    that is imported counts: the first.
    """
    by_name, findings = _first_of_each_name(installed)
    declared: dict[str, list[Requirement]] = {}
    for name, one in by_name.items():
        declared[name], refused = _requirements(one)
        if refused:
            findings.append(finding("requirement", "medium", one["name"], "; ".join(refused)))
    extras = _extras_in_use(declared)
    for name, one in by_name.items():
        wanted = (requirement for requirement in declared[name] if _applies(requirement, extras[name]))
        problems = [_problem(requirement, by_name.get(canonicalize_name(requirement.name))) for requirement in wanted]
        if wrong := [problem for problem in dict.fromkeys(problems) if problem]:
            findings.append(finding("dependency", "medium", one["name"], "; ".join(wrong)))
    return sorted(findings, key=lambda found: found["id"])


def _first_of_each_name(installed: Iterable[Installed]) -> tuple[dict[str, Installed], list[Finding]]:
    by_name: dict[str, Installed] = {}
    twice: list[Finding] = []
    for one in installed:
        first = by_name.setdefault(canonicalize_name(one["name"]), one)
        # Why: one directory in front of another may hide a distribution on purpose; within one directory it is an accident.
        if first is not one and Path(first["folder"]).parent == Path(one["folder"]).parent:
            twice.append(finding("twice", "medium", one["name"], f"is installed twice: {first['version']}, {one['version']}"))
    return by_name, twice


def _requirements(one: Installed) -> tuple[list[Requirement], list[str]]:
    """What a distribution declares, and what of it cannot be understood or met."""
    headers = _headers(one["folder"])
    requirements: list[Requirement] = []
    refused: list[str] = []
    for text in (str(value) for value in headers.get_all("Requires-Dist", [])):
        try:
            requirement = Requirement(text)
            _applies(requirement, set())
            requirements.append(requirement)
        except ValueError as error:
            refused.append(f"declares {text!r}, which cannot be understood: {str(error).splitlines()[0]}")
    python = str(headers.get("Requires-Python", ""))
    try:
        if not SpecifierSet(python).contains(".".join(map(str, sys.version_info[:3])), prereleases=True):
            refused.append(f"needs Python {python}")
    except ValueError as error:
        refused.append(f"declares Python {python!r}, which cannot be understood: {error}")
    return requirements, refused


def _extras_in_use(declared: Mapping[str, Sequence[Requirement]]) -> dict[str, set[str]]:
    """Which extras of each distribution some other one asks for; an extra may ask for further extras."""
    extras: dict[str, set[str]] = {name: set() for name in declared}
    waiting = list(declared)
    while waiting:
        name = waiting.pop()
        for requirement in declared[name]:
            target = canonicalize_name(requirement.name)
            if target in extras and not requirement.extras <= extras[target] and _applies(requirement, extras[name]):
                extras[target] |= requirement.extras
                waiting.append(target)
    return extras


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _problem(requirement: Requirement, found: Installed | None) -> str:
    wanted = f"{requirement.name}{requirement.specifier}"
    if found is None:
        return f"needs {wanted}, which is not installed"
    try:
        fits = requirement.specifier.contains(found["version"], prereleases=True)
    except ValueError:
        fits = False
    return "" if fits else f"needs {wanted}, but {found['version']} is installed"


# --- risk -------------------------------------------------------------------------------------------------------------


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by severity, then by id."""
    order = list(RISK)
    return sorted(findings, key=lambda one: (order.index(one["severity"]), one["id"]))


def risk_score(findings: Iterable[Finding], ignore: Collection[str] = ()) -> int:
    """The sum of what each finding adds, but for those whose ids a person chose to ignore.

    >>> found = [finding("tampered", "high", "demo", "..."), unlicensed_finding("demo")]
    >>> risk_score(found), risk_score(found, ignore=["tampered:demo"])
    (26, 1)
    """
    return sum(RISK[one["severity"]] for one in findings if one["id"] not in ignore)
