"""What a person says at a barrier, as a value.

Knows no store and no walk.  The same `Decision` goes in (``store.decide``) and
comes out (``when=approved``, ``ctx.decisions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.records import DecisionAction, DecisionRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LAST_DAY: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
"""The last time that can be told in every time zone, microseconds: a deadline of ten thousand years must not hide the tickets beside it."""


_TEXT: Final = frozenset({str})
_PERHAPS_TEXT: Final = frozenset({str, type(None)})


def _roles(roles: str | Iterable[str]) -> tuple[str, ...]:
    """One role may be given as it is.  Raises ArgumentError for what is neither a role nor several."""
    if isinstance(roles, str):
        return (roles,)
    if not isinstance(roles, Iterable):
        raise ArgumentError("roles", roles, "a role or a list of roles, as texts")
    return tuple(roles)


def moment(microseconds: int) -> datetime:
    """The aware UTC time of a store's microseconds; of what lies behind the last year of the calendar, its last day.

    >>> moment(1_000_000).isoformat(), moment(10**18).isoformat()
    ('1970-01-01T00:00:01+00:00', '9999-12-31T00:00:00+00:00')
    """
    return _EPOCH + timedelta(microseconds=min(microseconds, LAST_DAY))


@dataclass(frozen=True, slots=True)
class Decision:
    """Approve, reject, modify, reroute or skip: by whom, why, over what.

    >>> Decision.approve(by="ana", reason="ok").approves
    True
    >>> Decision.modify(by="ana", edits={"amount": 10}).approves
    False
    """

    action: DecisionAction
    by: str
    """The person; recorded and checked against the barrier's approvers."""
    reason: str = ""
    """Why; recorded."""
    source: str = "api"
    """Where it came from: api, cli, console, timeout ..."""
    roles: tuple[str, ...] = ()
    """Roles the person acts in, checked against the barrier's approvers, too."""
    edits: Mapping[str, Any] | None = None
    """Of a modify: the new values by state key."""
    target: str | None = None
    """Of a reroute: the node to go to."""
    approves: bool = False
    """Whether it lets the run pass."""
    seen: str | None = None
    """Digest of the payload the person saw; None binds to what the open ticket shows."""
    on_behalf_of: str | None = None
    """Whose right it is, where somebody delegated it; None is one's own, or the oldest delegation where one has none."""
    grant: str | None = None
    """When the store took it: the allowance that made it, or the delegation it rests on."""
    at: datetime | None = None
    """When the store took it (UTC); None before."""

    def __post_init__(self) -> None:
        """Raise ArgumentError for a field of a wrong kind."""
        texts, perhaps = (self.action, self.by, self.reason, self.source), (self.target, self.seen, self.on_behalf_of)
        if (
            _TEXT.issuperset(map(type, texts)) and _PERHAPS_TEXT.issuperset(map(type, perhaps)) and self.edits is None
            and type(self.roles) is tuple and _TEXT.issuperset(map(type, self.roles)) and type(self.approves) is bool
        ):  # fmt: skip
            return  # as nearly every decision is, and each is made several times on its way
        for name, text in zip(("action", "by", "reason", "source"), texts, strict=True):
            if not isinstance(text, str):
                raise ArgumentError(name, text, "a text")
        for name, told in zip(("target", "seen", "on_behalf_of"), perhaps, strict=True):
            if not isinstance(told, str | None):
                raise ArgumentError(name, told, "a text or None")
        if not isinstance(self.roles, tuple) or not all(isinstance(role, str) for role in self.roles):
            raise ArgumentError("roles", self.roles, "a role or a list of roles, as texts")
        if self.edits is not None and not (isinstance(self.edits, Mapping) and all(isinstance(key, str) for key in self.edits)):
            raise ArgumentError("edits", self.edits, 'a mapping of state keys to new values, e.g. {"amount": 10}')
        if not isinstance(self.approves, bool):
            raise ArgumentError("approve", self.approves, "True or False")

    @classmethod
    def approve(
        cls, *, by: str, reason: str = "", roles: str | Iterable[str] = (), seen: str | None = None, source: str = "api",
        on_behalf_of: str | None = None,
    ) -> Decision:  # fmt: skip
        """Let the run pass."""
        return cls("approve", by, reason, source, _roles(roles), approves=True, seen=seen, on_behalf_of=on_behalf_of)

    @classmethod
    def reject(
        cls, *, by: str, reason: str = "", roles: str | Iterable[str] = (), seen: str | None = None, source: str = "api",
        on_behalf_of: str | None = None,
    ) -> Decision:  # fmt: skip
        """Do not let the run pass."""
        return cls("reject", by, reason, source, _roles(roles), seen=seen, on_behalf_of=on_behalf_of)

    @classmethod
    def modify(
        cls, *, by: str, edits: Mapping[str, Any], approve: bool = False, reason: str = "", roles: str | Iterable[str] = (),
        seen: str | None = None, source: str = "api", on_behalf_of: str | None = None,
    ) -> Decision:  # fmt: skip
        """Write ``edits`` (they must fit the barrier's form); it approves only where ``approve`` says so."""
        if not isinstance(edits, Mapping):
            raise ArgumentError("edits", edits, 'a mapping of state keys to new values, e.g. {"amount": 10}')
        return cls("modify", by, reason, source, _roles(roles), edits=dict(edits), approves=approve, seen=seen, on_behalf_of=on_behalf_of)

    @classmethod
    def reroute(
        cls, *, by: str, to: str, reason: str = "", roles: str | Iterable[str] = (), seen: str | None = None, source: str = "api",
        on_behalf_of: str | None = None,
    ) -> Decision:  # fmt: skip
        """Go to ``to`` instead; an edge from the barrier to it must be declared."""
        return cls("reroute", by, reason, source, _roles(roles), target=to, seen=seen, on_behalf_of=on_behalf_of)

    @classmethod
    def skip(
        cls, *, by: str, reason: str = "", roles: str | Iterable[str] = (), seen: str | None = None, source: str = "api",
        on_behalf_of: str | None = None,
    ) -> Decision:  # fmt: skip
        """Go on without approving or rejecting."""
        return cls("skip", by, reason, source, _roles(roles), seen=seen, on_behalf_of=on_behalf_of)

    @classmethod
    def of_record(cls, record: DecisionRecord) -> Decision:
        """The decision a store keeps."""
        return cls(
            record.action, record.actor, record.reason,  # type: ignore[arg-type]  # no signal is handed out as a decision
            record.source, record.roles, record.edits, record.target, record.approves,
            record.payload_digest, record.on_behalf_of, record.grant, moment(record.decided_at),
        )  # fmt: skip

    def data(self) -> dict[str, Any]:
        """Plain data for a checkpoint; `of_data` reads it back."""
        data = {
            "action": self.action, "by": self.by, "reason": self.reason, "source": self.source, "roles": list(self.roles),
            "edits": dict(self.edits) if self.edits is not None else None, "target": self.target, "approves": self.approves,
            "seen": self.seen, "at": self.at.isoformat() if self.at else None,
        }  # fmt: skip
        # Most decisions rest on nobody's grant: their rows do not say so.
        return data | {name: value for name in ("on_behalf_of", "grant") if (value := getattr(self, name)) is not None}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Decision:
        at = data["at"]
        return cls(
            data["action"], data["by"], data["reason"], data["source"], _roles(data["roles"]), data["edits"], data["target"],
            data["approves"], data["seen"], data.get("on_behalf_of"), data.get("grant"), datetime.fromisoformat(at) if at else None,
        )  # fmt: skip
