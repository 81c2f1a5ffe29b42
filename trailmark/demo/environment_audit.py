"""The flow that audits a Python environment, from the metadata on this machine.

    collect_strict ──(unreadable metadata)──> collect_tolerant
          │                                        │
          └──────────────> checks <────────────────┘
             files ↺ · licences · dependencies · sizes          side by side, merged by the reducers of `Audit`
                             │
                           score <──────────────────┐
             low risk │          │ else             │
                      │        review ──(edited)──> amended
                      │          │ approved · rejected
                      │     accepted · refused
                      └──────────┴──> report

Run it with ``trailmark demo``, from Python as ``examples/environment_audit.py`` does, or copy it: it imports nothing of
trailmark but its public names.  How things are checked stands in `audit_checks`, what the report looks like in
`audit_report`; neither knows of the other, or of flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from trailmark import END, Flow, StepContext, approved, rejected
from trailmark.demo import audit_checks, audit_report
from trailmark.demo.audit_checks import Finding, Installed, UnreadableMetadataError
from trailmark.reducers import append, counter

Body: TypeAlias = Callable[..., dict[str, Any]]
"""A node's function."""


class Audit(BaseModel):
    """The state of one audit: the first fields are its input, the others are what it finds."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sites: list[str] = []
    """Site directories to audit; empty = those of the interpreter that runs the audit."""
    reports: str = "environment-audit"
    """Folder the reports are written to."""
    batch: int = Field(default=10, ge=1)
    """How many distributions are verified per step, that is per checkpoint."""
    threshold: int = Field(default=20, ge=0)
    """The highest risk that needs nobody's approval."""

    collected_at: str = ""
    """When the environment was read (UTC, ISO 8601)."""
    distributions: list[Installed] = []
    """What is installed."""
    verified: int = 0
    """How many of ``distributions`` have had their files verified."""
    files: Annotated[dict[str, int], counter] = {}
    """Files by their fate: verified, unhashed, missing ..."""
    licences: Annotated[dict[str, int], counter] = {}
    """Distributions by licence."""
    sizes: dict[str, int] = {}
    """Bytes on disk by distribution."""
    largest: list[str] = []
    """The distributions, the largest first."""
    findings: Annotated[list[Finding], append] = []
    """What is wrong, in the order it was found."""
    risk: int = 0
    """The risk score of the findings that count."""

    ignore: list[str] = []
    """Ids of findings that a reviewer chose to ignore."""
    note: str = ""
    """What a reviewer wants the report to say."""
    decisions: Annotated[list[dict[str, Any]], append] = []
    """Who decided what, when and why."""
    written: dict[str, str] = {}
    """Paths of the reports by kind: markdown, json."""


class ReviewForm(BaseModel):
    """What a reviewer may fill in along with a decision."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    ignore: list[str] = []
    """Ids of findings that shall not count, such as "no-record:six"."""
    note: str = Field(default="", max_length=2000)
    """Goes into the report."""


# --- collecting -------------------------------------------------------------------------------------------------------


def collect_strict(state: Audit) -> dict[str, Any]:
    """Read what is installed; an environment with unreadable metadata takes the fallback edge."""
    update, unreadable = _collected(state)
    if unreadable:
        raise UnreadableMetadataError(unreadable)
    return update


def collect_tolerant(state: Audit) -> dict[str, Any]:
    """Read what can be read; the rest becomes findings."""
    update, unreadable = _collected(state)
    return update | {"findings": [audit_checks.unreadable_finding(folder, why) for folder, why in unreadable.items()]}


def _collected(state: Audit) -> tuple[dict[str, Any], dict[str, str]]:
    sites = state.sites or audit_checks.default_sites()
    distributions, unreadable = audit_checks.read_sites(sites)
    return {
        # Why absolute: whoever resumes this run may stand in another folder.
        "sites": [str(Path(site).resolve()) for site in sites],
        "reports": str(Path(state.reports).resolve()),
        "collected_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "distributions": distributions,
    }, unreadable


# --- checking: four branches, side by side ----------------------------------------------------------------------------


def verify_batch(state: Audit) -> dict[str, Any]:
    """Verify the files of the next few distributions: one step, one checkpoint."""
    batch = state.distributions[state.verified : state.verified + state.batch]
    checks = [audit_checks.check_files(one) for one in batch]
    return {
        "verified": state.verified + len(batch),
        "files": {fate: sum(check.counts[fate] for check in checks) for fate in audit_checks.FATES},
        "findings": [found for check in checks for found in check.findings],
    }


def distributions_left(state: Audit) -> bool:
    """Whether files of some distribution are still to be verified."""
    return state.verified < len(state.distributions)


def licences(state: Audit) -> dict[str, Any]:
    """Count the licences; a distribution without one is a finding."""
    found = [(one["name"], audit_checks.licence_of(one)) for one in state.distributions]
    return {
        "licences": dict(Counter(licence or "unknown" for _, licence in found)),
        "findings": [audit_checks.unlicensed_finding(name) for name, licence in found if not licence],
    }


def dependencies(state: Audit) -> dict[str, Any]:
    """Find declared dependencies that are missing or of the wrong version."""
    return {"findings": audit_checks.check_dependencies(state.distributions)}


def measure(state: Audit) -> dict[str, Any]:
    """Measure each distribution on disk; one without a RECORD has no size."""
    measured = ((one["name"], audit_checks.size_on_disk(one)) for one in state.distributions)
    return {"sizes": {name: size for name, size in measured if size is not None}}


def rank(state: Audit) -> dict[str, Any]:
    """Order the distributions by size."""
    return {"largest": sorted(state.sizes, key=lambda name: (-state.sizes[name], name))}


# --- judging and reporting --------------------------------------------------------------------------------------------


def score(state: Audit) -> dict[str, Any]:
    """Add up the risk of what was found and is not ignored."""
    return {"risk": audit_checks.risk_score(state.findings, state.ignore)}


def low_risk(state: Audit) -> bool:
    """Whether nobody needs to be asked."""
    return state.risk <= state.threshold


def record_decision(state: Audit, ctx: StepContext) -> dict[str, Any]:
    """Keep for the report who decided what about which risk."""
    decision = ctx.decisions["review"]
    at = decision.at.isoformat(timespec="seconds") if decision.at else ""
    outcome = "accepted" if decision.approves else "refused" if decision.action == "reject" else "amended"
    return {
        "decisions": [
            {"outcome": outcome, "by": decision.by, "reason": decision.reason, "at": at, "risk": state.risk}
        ]
    }  # fmt: skip


def report(state: Audit) -> dict[str, Any]:
    """Write the reports."""
    return {"written": audit_report.write_report(state.reports, facts_of(state))}


def facts_of(state: Audit) -> audit_report.Facts:
    """What the report says, as plain data in a fixed order."""
    last = state.decisions[-1]["outcome"] if state.decisions else ""
    return {
        "verdict": last if last in ("accepted", "refused") else "passed",
        "risk": audit_checks.risk_score(state.findings, state.ignore),
        "risk_in_all": audit_checks.risk_score(state.findings),
        "threshold": state.threshold,
        "sites": list(state.sites),
        "collected_at": state.collected_at,
        "distributions": len(state.distributions),
        "files": dict(state.files),
        "licences": dict(state.licences),
        "sizes": dict(state.sizes),
        "largest": list(state.largest),
        "findings": audit_checks.worst_first(one for one in state.findings if one["id"] not in state.ignore),
        "ignored": audit_checks.worst_first(one for one in state.findings if one["id"] in state.ignore),
        "decisions": list(state.decisions),
        "note": state.note,
    }


# --- the flow ---------------------------------------------------------------------------------------------------------


def audit_flow(around: Callable[[Body], Body] = lambda body: body) -> Flow:
    """Build the flow.  ``around`` may wrap every node's function, for example to note when it runs: the graph stays the same."""
    files = Flow("files")
    files.add_node("verify_batch", around(verify_batch))
    files.set_entry("verify_batch")
    files.add_edge("verify_batch", "verify_batch", when=distributions_left)
    files.add_edge("verify_batch", END)

    sizes = Flow("sizes")
    sizes.add_node("measure", around(measure))
    sizes.add_node("rank", around(rank))
    sizes.set_entry("measure")
    sizes.add_edge("measure", "rank")
    sizes.add_edge("rank", END)

    audit = Flow("environment_audit", Audit)
    audit.add_node("collect_strict", around(collect_strict))
    audit.add_node("collect_tolerant", around(collect_tolerant))
    audit.add_parallel("checks", [files, around(licences), around(dependencies), sizes])
    audit.add_node("score", around(score))
    audit.add_barrier(
        "review",
        prompt="The risk of this environment is {risk}, above {threshold}. Accept it?",
        show=["risk", "threshold", "findings", "ignore", "largest"],
        form=ReviewForm,
    )
    for outcome in ("accepted", "refused", "amended"):
        audit.add_node(outcome, around(record_decision))
    audit.add_node("report", around(report))

    audit.set_entry("collect_strict")
    audit.add_edge("collect_strict", "checks")
    audit.add_fallback("collect_strict", "collect_tolerant", on=(UnreadableMetadataError,))
    audit.add_edge("collect_tolerant", "checks")
    audit.add_edge("checks", "score")
    audit.add_edge("score", "report", when=low_risk)
    audit.add_edge("score", "review")
    audit.add_edge("review", "accepted", when=approved)
    audit.add_edge("review", "refused", when=rejected)
    audit.add_edge("review", "amended")  # edited, neither approved nor rejected: score again, ask again where it is still too much
    audit.add_edge("accepted", "report")
    audit.add_edge("refused", "report")
    audit.add_edge("amended", "score")
    audit.add_edge("report", END)
    return audit


flow = audit_flow()
