"""What can be wrong with a barrier: what it shows, what it lets people edit, who decides, what happens without them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from string import Formatter
from typing import Any, Final

from pydantic import BaseModel

from engine.declared import Barrier
from engine.option_checks import at_least_one, span, text, undeclared_keys, yes_or_no
from engine.plan import Escalation
from engine.resolve import Scope

ON_TIMEOUT: Final = ("approve", "reject", "skip", "fail")
ON_REJECT: Final = ("route", "fail", "continue")


def barrier_settings(node: Barrier, scope: Scope) -> Iterator[str]:
    """Every problem of one barrier."""
    where = f"barrier {node.name!r}"
    yield from _shown(node, where, scope)
    yield from _form(node, where, scope)
    yield from at_least_one(where, "quorum", node.quorum)
    if node.form is not None and isinstance(node.quorum, int) and node.quorum > 1:
        yield f"{where}: a form and quorum={node.quorum} do not go together; where several must agree each may only approve or reject"
    yield from span(where, "timeout", node.timeout)
    for approver in node.approvers:
        if not isinstance(approver, str) or not approver:
            yield f"{where}: approver {approver!r} must be a name"
    if node.on_timeout is not None and node.on_timeout not in ON_TIMEOUT:
        yield f"{where}: on_timeout={node.on_timeout!r} is none of {', '.join(ON_TIMEOUT)}"
    if node.on_timeout is not None and node.timeout is None:
        yield f"{where}: on_timeout={node.on_timeout!r} never happens without a timeout; give timeout=timedelta(...)"
    if node.on_reject is not None and node.on_reject not in ON_REJECT:
        yield f"{where}: on_reject={node.on_reject!r} is none of {', '.join(ON_REJECT)}"
    yield from yes_or_no(where, "early", node.early)
    yield from _nudges(node, where)
    if node.on_reject == "route" and not scope.ways[node.name].conditional:
        yield f"{where}: on_reject='route' needs an edge that says so; add_edge({node.name!r}, ..., when=rejected)"


def _nudges(node: Barrier, where: str) -> Iterator[str]:
    times: list[tuple[str, Any]] = [("remind", after) for after in node.remind]
    for step in node.escalate:
        if not isinstance(step, Escalation):
            yield f"{where}: escalate={step!r} must be an Escalation, e.g. Escalation(after=timedelta(days=1), approvers={{'director'}})"
            continue
        times.append(("escalate", step.after))
        if isinstance(step.approvers, str) or not step.approvers or not all(isinstance(who, str) and who for who in step.approvers):
            yield f"{where}: an escalation needs approvers, as names; not {step.approvers!r}"
    if node.escalate and not node.approvers:
        yield f"{where}: anybody may decide it, so an escalation changes nothing; give approvers="
    for option, after in times:
        yield from span(where, option, after) if after is not None else (f"{where}: {option}=None is no time",)
        if isinstance(after, timedelta) and isinstance(node.timeout, timedelta) and after >= node.timeout:
            yield f"{where}: {option} after {after} never happens, its timeout of {node.timeout} comes first"


def _shown(node: Barrier, where: str, scope: Scope) -> Iterator[str]:
    yield from undeclared_keys(scope, f"{where}: show", node.show)
    if not isinstance(node.prompt, str):
        yield from text(where, "prompt", node.prompt)
        return
    try:
        fields = [field for _text, field, _spec, _conversion in Formatter().parse(node.prompt) if field is not None]
    except ValueError as error:
        yield f"{where}: its prompt is no str.format template ({error}); write {{{{ and }}}} for braces"
        return
    for field in dict.fromkeys(fields):
        key = field.split(".")[0].split("[")[0]
        if key not in node.show:
            yield f"{where}: its prompt names {{{field}}}, which is not shown; add {key!r} to show="


def _form(node: Barrier, where: str, scope: Scope) -> Iterator[str]:
    form: Any = node.form
    if isinstance(form, tuple):
        yield from undeclared_keys(scope, f"{where}: form", form)
    elif isinstance(form, type) and issubclass(form, BaseModel):
        yield from undeclared_keys(scope, f"{where}: form {form.__name__}", form.__pydantic_fields__)
    elif form is not None:
        yield f"{where}: form={form!r} must be a pydantic model or a list of state keys"
