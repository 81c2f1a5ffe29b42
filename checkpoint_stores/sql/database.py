"""What the parts of the store ask of the database under them, whichever it is.

Opened by its first use, closed once; reads, transactions and the driver's errors
pass here.  How SQLite and PostgreSQL do it is `sqlite_database` and
`postgres_database`; what is asked is the parts' to say.  Knows no rule.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, ParamSpec, Protocol, TypeVar

from checkpoint_stores.errors import StoreUnavailableError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults
from checkpoint_stores.sql.matters import Matter
from checkpoint_stores.sql.places import Question
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.transitions import Creation, Transition
from checkpoint_stores.sql.wires import Wire
from checkpoint_stores.watching import LocalWatches

if TYPE_CHECKING:
    from checkpoint_stores.sql.step_transaction import StepTransaction

T = TypeVar("T")
P = ParamSpec("P")

Wanted = Sequence[Question]

Found = Sequence[Iterable[Any]]
"""The lines that each text gave; they can be gone through once."""

_MANY_LINES: Final = 64
_MANY_BYTES: Final = 65_536


class Outside(Protocol):
    """Hears of changes that other processes made."""

    @property
    def watches(self) -> LocalWatches: ...
    @property
    def rung(self) -> Collection[str]:
        """The runs whose steps somebody outside asked to be told of."""
        ...

    def tell(self, run_id: str) -> None:
        """Tell whoever rang for a run of its step, some time soon."""
        ...

    async def close(self) -> None: ...


class Database(ABC):
    """One database, as the store uses it; belongs to the event loop that opened it.

    Args:
        url: how people are told where it is.
        scribe: in whose name it is written.
    """

    size: ClassVar[str]
    """The text that asks how many ``bytes`` it takes."""

    def __init__(self, url: str, scribe: Scribe) -> None:
        self.url = url
        self.scribe = scribe
        self.is_open = False
        self.outside: Outside
        self._is_closed = False
        self._opening = asyncio.Lock()

    # --- opening and closing ----------------------------------------------------------------------------------------
    async def open(self, *, may_upgrade: bool = False) -> None:
        """Open it where it is not; every other method does it by itself.

        Raises StoreUnavailableError, SchemaVersionError.
        """
        async with self._opening:
            if self._is_closed:
                raise StoreUnavailableError(self.url, "this store is closed")
            if self.is_open:
                return
            with faults.typed_errors(self.url):
                await self._open(may_upgrade=may_upgrade)
            self.is_open = True

    async def close(self, last: Callable[[Wire, Scribe], object]) -> None:
        """Carry out what is queued, then ``last`` in a transaction, and disconnect.  Idempotent."""
        if self._is_closed:
            return
        async with self._opening:
            self._is_closed = True
            if self.is_open:
                self.is_open = False
                await self._close(lambda wire: last(wire, self.scribe))

    def check_open(self) -> None:
        """Raises StoreUnavailableError."""
        if not self.is_open:
            raise StoreUnavailableError(self.url, "this store is not open")

    # --- writing ----------------------------------------------------------------------------------------------------
    async def transact(self, work: Callable[Concatenate[Wire, Scribe, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out ``work`` in one write transaction; driver errors become the store's."""
        if not self.is_open:
            await self.open()
        with faults.typed_errors(self.url):
            return await self._write(lambda wire: work(wire, self.scribe, *args, **kwargs))

    @abstractmethod
    def commit(self, work: Transition) -> Awaitable[Receipt]:
        """Carry out a commit, together with others that wait.  Raises LeaseLostError, or the driver's own error."""

    def step(self, **options: Any) -> StepTransaction:
        """A transaction of a step's own, on an open database; ``options`` as `StepTransaction` takes them."""
        self.check_open()
        return self._step(**options)

    async def at_once(self, matter: Matter) -> Any:
        """Answer together with what others ask at this moment; None: not so, go the long way of a transaction or a reading."""
        return None

    @abstractmethod
    async def create_at_once(self, new: Creation) -> int | None:
        """Create a run together with others; when it was created, or None: go the long way, which says what is wrong."""

    # --- reading ----------------------------------------------------------------------------------------------------
    async def fetch(self, wanted: Wanted) -> list[list[Any]]:
        """Bare tuples from the bare driver, all from one moment of the database."""
        if not self.is_open:
            await self.open()
        return await self._fetch(wanted)

    async def listed(self, wanted: Wanted) -> list[list[Any]]:
        """The same for listings, which may take long: nobody who drives a run waits for them."""
        return await self.fetch(wanted)

    async def fetch_through(self, wanted: Wanted, sift: Callable[[Found], T]) -> T:
        """What ``sift`` makes of what `fetch` would give; where that is much, it is called in a thread, so that nobody blocks the loop."""
        found = await self.fetch(wanted)
        if _is_much(found):
            return await asyncio.to_thread(sift, found)
        return sift(found)

    async def bytes_taken(self) -> int:
        """How much room it takes."""
        return int((await self.fetch([(self.size, ())]))[0][0][0])

    async def vacuum(self) -> None:
        """Give unused space back; outside any transaction."""
        if not self.is_open:
            await self.open()
        with faults.typed_errors(self.url):
            await self._vacuum()

    # --- what a subclass says ---------------------------------------------------------------------------------------
    @abstractmethod
    def _step(self, **options: Any) -> StepTransaction: ...
    @abstractmethod
    async def _open(self, *, may_upgrade: bool) -> None: ...
    @abstractmethod
    async def _close(self, last: Callable[[Wire], object]) -> None: ...
    @abstractmethod
    async def _write(self, work: Callable[[Wire], T]) -> T: ...
    @abstractmethod
    async def _vacuum(self) -> None: ...
    @abstractmethod
    async def _fetch(self, wanted: Wanted) -> list[list[Any]]: ...


def _is_much(found: list[list[Any]]) -> bool:
    if sum(map(len, found)) > _MANY_LINES:
        return True
    return sum(len(value) for lines in found for line in lines for value in line if type(value) is bytes) > _MANY_BYTES
