"""The report of an audit: facts as JSON, and the same facts as Markdown for people.

The Markdown is made from the facts alone, so the two cannot disagree.  Knows nothing of flows or of how the facts were
found.  What comes from the audited distributions is shown, never trusted: it cannot break a table or become markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Facts: TypeAlias = dict[str, Any]

LARGEST = 10
"""How many distributions the table of sizes lists."""


def write_report(folder: str | Path, facts: Facts) -> dict[str, str]:
    """Write both reports into ``folder`` and return their paths; writing the same facts again changes nothing."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    texts = {"markdown": markdown(facts), "json": json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n"}
    paths = {kind: place / f"environment-audit.{suffix}" for kind, suffix in (("markdown", "md"), ("json", "json"))}
    for kind, path in paths.items():
        # Why: a reader, or a crash halfway, must never see half a report.
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_text(texts[kind], encoding="utf-8")
        unfinished.replace(path)
    return {kind: str(path) for kind, path in paths.items()}


def markdown(facts: Facts) -> str:
    """Render the facts as Markdown."""
    parts = (_head, _decisions, _findings, _files, _licences, _sizes)
    return "\n\n".join(part(facts) for part in parts) + "\n"


def _head(facts: Facts) -> str:
    kept = f", {facts['risk_in_all']} with what was ignored" if facts["risk_in_all"] != facts["risk"] else ""
    verdict = f"**{facts['verdict']}**: risk {facts['risk']}{kept} (threshold {facts['threshold']})"
    about = f"{facts['distributions']} distributions, read at {facts['collected_at']}."
    sites = "\n".join(f"- {_plain(site)}" for site in facts["sites"])
    return f"# Environment audit\n\n{verdict}, {about}\n\n{sites}"


def _decisions(facts: Facts) -> str:
    rows = [(one["at"], one["by"], one["outcome"], one["risk"], one["reason"]) for one in facts["decisions"]]
    note = f"\n\nNote: {_plain(facts['note'])}" if facts["note"] else ""
    return _section("Decisions", ("when", "who", "decision", "risk then", "why"), rows, "Nobody had to decide.") + note


def _findings(facts: Facts) -> str:
    rows = [(one["severity"], one["id"], one["message"]) for one in facts["findings"]]
    ignored = [(one["severity"], one["id"], one["message"]) for one in facts["ignored"]]
    columns = ("severity", "finding", "what")
    shown = _section("Findings", columns, rows, "None.")
    return shown + ("\n\n" + _section("Ignored findings", columns, ignored, "") if ignored else "")


def _files(facts: Facts) -> str:
    return _section("Files", ("fate", "files"), list(facts["files"].items()), "No files are recorded.")


def _licences(facts: Facts) -> str:
    rows = sorted(facts["licences"].items(), key=lambda pair: (-pair[1], pair[0]))
    return _section("Licences", ("licence", "distributions"), rows, "No distributions.")


def _sizes(facts: Facts) -> str:
    total = sum(facts["sizes"].values())
    rows = [(name, size_text(facts["sizes"][name]), f"{facts['sizes'][name] / (total or 1):.1%}") for name in facts["largest"][:LARGEST]]
    title = f"Largest distributions ({size_text(total)} in all)"
    return _section(title, ("distribution", "size", "share"), rows, "No sizes are recorded.")


def _section(title: str, columns: Sequence[str], rows: Sequence[Iterable[object]], otherwise: str) -> str:
    return f"## {title}\n\n" + (_table(columns, rows) if rows else otherwise)


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: object) -> str:
    r"""One line of text that Markdown shows as it is.

    >>> print(_plain("a|b\n<i>"))
    a\|b \<i\>
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in str(value)).split())
    return "".join("\\" + sign if sign in "\\|<>`*_[]#" else sign for sign in line)


def size_text(count: int) -> str:
    """Bytes for people.

    >>> size_text(1_500_000)
    '1.5 MB'
    """
    return f"{count / 1_000_000:.1f} MB" if count >= 100_000 else f"{count / 1000:.1f} kB"
