"""The question at the demo's barrier: what is shown to the person, and what they answer.

Never answers by itself: no answer, no name or Ctrl-D is "later", and then nothing is decided.
"""

from __future__ import annotations

from typing import Any

from trailmark import Decision
from trailmark.checkpoint_stores import BarrierRecord
from trailmark.demo.audit_checks import Finding, worst_first
from trailmark.demo.scratch import is_scratch
from trailmark.demo.screen import Screen

SHOWN = 12
"""How many findings are listed."""

SOURCE = "demo"


def show_ticket(screen: Screen, ticket: BarrierRecord) -> None:
    """Show what is asked, about what, and what may be filled in."""
    payload = ticket.payload
    counted = [found for found in worst_first(payload["findings"]) if found["id"] not in payload["ignore"]]
    screen.say(ticket.prompt, "bold yellow")
    screen.say()
    for title, findings in _by_place(counted):
        screen.say(title)
        for one in findings[:SHOWN]:
            screen.finding(one["severity"], one["id"], one["message"])
        if len(findings) > SHOWN:
            screen.say(f"  ... and {len(findings) - SHOWN} more")
    if payload["ignore"]:
        screen.say(f"ignored so far: {', '.join(payload['ignore'])}")
    screen.say()
    screen.say("The form, which a decision may fill in:")
    screen.facts(_fields(ticket.form or {}))
    screen.facts([("ticket", f"{ticket.ticket}, payload {ticket.digest[:12]}… (a decision is bound to this digest)")])


def _by_place(findings: list[Finding]) -> list[tuple[str, list[Finding]]]:
    scratch = [one for one in findings if is_scratch(one["distribution"])]
    real = [one for one in findings if not is_scratch(one["distribution"])]
    found = f"{len(real)} found in the environment itself" + (":" if real else ", which is a good sign")
    return [(f"{len(scratch)} found in the scratch site:", scratch), (found, real)] if scratch else [(found, real)]


def _fields(form: dict[str, Any]) -> list[tuple[str, str]]:
    fields = form.get("properties", {}).items()
    return [(name, " ".join(filter(None, (str(field.get("type", "")), "-", field.get("description", ""))))) for name, field in fields]


def ask(ticket: BarrierRecord, by: str | None) -> Decision | None:
    """Ask on the terminal; None = later.  Raises KeyboardInterrupt."""
    try:
        return _asked(ticket, by)
    except EOFError:
        return None


def _asked(ticket: BarrierRecord, by: str | None) -> Decision | None:
    answer = input("  [a]pprove, [r]eject, [e]dit, or Enter to decide later: ").strip().lower()[:1]
    if answer not in ("a", "r", "e") or not (name := by or input("  Your name: ").strip()):
        return None
    edits = _edits(ticket) if answer == "e" else {}
    approves = answer == "e" and input("  Approve it with that? [y/N] (no: the risk is scored again) ").strip().lower()[:1] == "y"
    reason = input("  Why: ").strip()
    if answer == "e":
        return Decision.modify(by=name, edits=edits, approve=approves, reason=reason, seen=ticket.digest, source=SOURCE)
    return decision_of("approve" if answer == "a" else "reject", ticket, by=name, reason=reason)


def _edits(ticket: BarrierRecord) -> dict[str, Any]:
    ignored = input("  Findings to ignore (ids, with spaces between): ").split()
    note = input("  A note for the report: ").strip()
    return {"ignore": [*ticket.payload["ignore"], *ignored], **({"note": note} if note else {})}


def decision_of(action: str, ticket: BarrierRecord, *, by: str, reason: str) -> Decision:
    """A decision over exactly what the ticket shows."""
    make = Decision.approve if action == "approve" else Decision.reject
    return make(by=by, reason=reason, seen=ticket.digest, source=SOURCE)
