"""The digest chain: each checkpoint carries a digest over its predecessor's digest and itself.

An edit, a reorder or a cut in the middle of a run breaks the chain at a known
seq.  A cut at the very end is seen against the anchor in ``runs``.  With a key
the digest is an HMAC, so that only a holder of the key can write a sound row.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.records import Row, Snapshot, new_tuple

DIGEST_BYTES: Final = 32


class Chain:
    """Makes and checks the digests of rows.

    >>> chain = Chain()
    >>> row = chain.seal(chain.genesis("r"), "r", 1, 1, 0, "start", "", "", "a", b"[]", 0)
    >>> chain.follows(chain.genesis("r"), row)
    True
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes | None = None) -> None:
        if not isinstance(key, bytes | None):
            raise ArgumentError("chain_key", key, "bytes, or None for a chain without a key")
        self._key = key

    def genesis(self, run_id: str, parent_digest: bytes = b"") -> bytes:
        """What the first row of a run stands on; a fork's stands on its parent's digest."""
        return self._digest(b"trailmark run\0" + run_id.encode() + b"\0" + parent_digest)

    def seal(  # noqa: PLR0917 - the columns of a row, in their order
        self, previous: bytes, run_id: str, seq: int, epoch: int, step: int, kind: str,
        path: str, node: str, next: str, payload: bytes, started_at: int,  # noqa: A002
    ) -> Row:  # fmt: skip
        """Return the row with the digest that chains it to ``previous``."""
        # Lengths first, so that no two different rows cover the same bytes.
        head = f"{run_id}\0{seq}\0{epoch}\0{step}\0{started_at}\0{kind}\0{path}\0{node}\0{next}\0{len(payload)}\0"
        covered = b"%b%b%b" % (previous, head.encode(), payload)
        digest = sha256(covered).digest() if self._key is None else hmac.digest(self._key, covered, "sha256")
        return new_tuple(Row, (run_id, seq, epoch, step, kind, path, node, next, payload, started_at, digest, 0))

    def follows(self, previous: bytes, row: Row) -> bool:
        """Whether ``row`` is an unedited successor of the row whose digest is ``previous``."""
        try:
            return hmac.compare_digest(self.seal(previous, *row[:10]).digest, row.digest)
        except TypeError:
            return False  # an edit by hand may leave text where bytes were

    def unbroken(self, previous: bytes, run_id: str, seq: int, rows: Sequence[Row]) -> int:
        """How many of ``rows``, the first of them ``seq``, follow each other without a hole or an edit.

        The same check as `follows`, written for thousands of rows: a run is not loaded without it.
        """
        key, join = self._key, b"".join
        start = seq
        try:
            for _, number, epoch, step, kind, path, node, next_, payload, started_at, digest, _ in rows:
                head = f"{run_id}\0{number}\0{epoch}\0{step}\0{started_at}\0{kind}\0{path}\0{node}\0{next_}\0{len(payload)}\0"
                if key is None:
                    sealing = sha256(previous)
                    sealing.update(head.encode())
                    sealing.update(payload)
                    sealed = sealing.digest()
                else:
                    sealed = hmac.digest(key, join((previous, head.encode(), payload)), "sha256")
                if number != seq or sealed != digest:
                    break
                previous = digest
                seq += 1
        except (TypeError, UnicodeError):
            pass  # an edit by hand may leave text where bytes were
        return seq - start

    def seal_snapshot(self, snapshot: Snapshot) -> bytes:
        """A digest over a whole snapshot, so that an edited one is told from a sound one."""
        head = f"trailmark snapshot\0{snapshot.run_id}\0{snapshot.seq}\0".encode()
        return self._digest(b"%b%b%b" % (head, snapshot.digest, snapshot.payload))

    def _digest(self, covered: bytes) -> bytes:
        if self._key is None:
            return sha256(covered).digest()
        return hmac.digest(self._key, covered, "sha256")
