"""A step's own transaction: a node's SQL and the step's checkpoint are committed together, or neither is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

from trailmark import (
    DELETE,
    END,
    ArgumentError,
    Fallback,
    Flow,
    FlowGraph,
    GraphExecutor,
    LeaseLostError,
    Retry,
    RunFailedError,
    SavePolicy,
    StepContext,
    StoreUnavailableError,
    TransactionOverError,
    TransactionTimeoutError,
    TransactionUnavailableError,
    branch,
)
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
from trailmark.testing.clock import settled

AT_ONCE = Retry(attempts=3, first=timedelta(0), jitter=0.0)
DEBIT = sa.text("INSERT INTO debits (run, amount) VALUES (:run, :amount)")

Body = Callable[[Any, StepContext], Awaitable[Any]]


class Accounts:
    """A table of the user's own in the store's database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = create_async_engine(url)

    async def open(self) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE debits (run VARCHAR(40), amount INTEGER UNIQUE)"))

    async def debits(self) -> list[int]:
        async with self._engine.connect() as connection:
            return list((await connection.execute(sa.text("SELECT amount FROM debits ORDER BY amount"))).scalars())

    async def close(self) -> None:
        await self._engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[SQLCheckpointStore]:
    async with SQLCheckpointStore(url, synchronous="OFF") as store:
        await store.runs()
        yield store


@pytest_asyncio.fixture
async def accounts(url: str, store: SQLCheckpointStore) -> AsyncIterator[Accounts]:
    accounts = Accounts(url)
    await accounts.open()
    yield accounts
    await accounts.close()


def alone(pay: Body, **options: Any) -> FlowGraph:
    """One node, and no way out where it fails."""
    flow = Flow("paying", {"amount": int, "paid": bool, "note": str})
    flow.add_node("pay", pay, **options)
    return flow.set_entry("pay").add_edge("pay", END).compile()


def paying(pay: Body, *, on: Any = (), **options: Any) -> FlowGraph:
    """One node, and another one that tells in ``note`` why it failed."""
    flow = Flow("paying", {"amount": int, "paid": bool, "note": str})
    flow.add_node("pay", pay, **options)
    flow.add_node("queue", lambda state, ctx: {"note": ctx.error["type"]})
    flow.set_entry("pay").add_edge("pay", END).add_fallback("pay", "queue", on=on).add_edge("queue", END)
    return flow.compile()


async def executed(store: Any, graph: FlowGraph, **options: Any) -> Any:
    async with GraphExecutor(graph, store=store) as executor:
        return await executor.execute({"amount": 7}, **options)


async def debit(connection: Any, ctx: StepContext, amount: int = 7) -> None:
    await connection.execute(DEBIT, {"run": ctx.run_id, "amount": amount})


async def test_a_nodes_sql_and_its_checkpoint_are_one_commit(store: SQLCheckpointStore, accounts: Accounts) -> None:
    seen: list[Any] = []

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
            seen.append((await connection.execute(sa.text("SELECT sum(amount) FROM debits"))).scalar())
        seen.append(await accounts.debits())
        return {"paid": True}

    result = await executed(store, paying(pay))
    assert (result.status, result.values["paid"]) == ("completed", True)
    assert seen == [7, []]
    assert await accounts.debits() == [7]
    assert await store.verify(result.run_id) == []


async def test_a_transaction_without_a_statement_is_no_transaction(store: SQLCheckpointStore, accounts: Accounts) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction():
            pass
        return {"paid": True}

    assert (await executed(store, paying(pay))).values["paid"] is True


@pytest.mark.parametrize("where", ["inside", "behind"])
async def test_where_the_node_raises_it_is_rolled_back_and_the_next_attempt_gets_a_new_one(
    store: SQLCheckpointStore, accounts: Accounts, where: str
) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
            if ctx.attempt < 3 and where == "inside":
                raise ConnectionError
        if ctx.attempt < 3:
            raise ConnectionError
        return {"paid": True}

    result = await executed(store, paying(pay, retry=AT_ONCE))
    assert result.values["paid"] is True
    assert await accounts.debits() == [7]


@pytest.mark.parametrize("returned", [{"unheard": 1}, {"amount": "many"}, {"note": object()}, Fallback("later"), "nonsense"])
async def test_what_makes_no_step_rolls_it_back(store: SQLCheckpointStore, accounts: Accounts, returned: Any) -> None:
    async def pay(state: Any, ctx: StepContext) -> Any:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return returned

    result = await executed(store, paying(pay))
    assert result.status == "completed"
    assert "note" in result.values
    assert await accounts.debits() == []


class Ledger(BaseModel):
    amount: int
    paid: bool = False


async def test_a_run_that_fails_for_its_last_state_has_committed_nothing(store: SQLCheckpointStore, accounts: Accounts) -> None:
    async def pay(state: Any, ctx: StepContext) -> Any:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return {"amount": DELETE}

    flow = Flow("paying", Ledger)
    flow.add_node("pay", pay)
    with pytest.raises(RunFailedError, match="FinalStateError"):
        await executed(store, flow.set_entry("pay").add_edge("pay", END).compile())
    assert await accounts.debits() == []


async def test_an_error_of_the_database_is_the_nodes_and_can_be_caught(store: SQLCheckpointStore, accounts: Accounts) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        try:
            async with ctx.transaction() as connection:
                await debit(connection, ctx)
                await debit(connection, ctx)
        except sa.exc.IntegrityError:
            async with ctx.transaction() as connection:
                await debit(connection, ctx, 8)
                try:
                    async with connection.begin_nested():
                        await debit(connection, ctx, 8)
                except sa.exc.IntegrityError:
                    await debit(connection, ctx, 9)
        return {"paid": True}

    assert (await executed(store, paying(pay))).values["paid"] is True
    assert await accounts.debits() == [8, 9]


@pytest.mark.parametrize("ending", ["commit", "rollback", "COMMIT", "rollback ;", " Begin"])
async def test_a_node_can_neither_commit_nor_roll_back_by_itself(store: SQLCheckpointStore, accounts: Accounts, ending: str) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
            if ending in ("commit", "rollback"):
                await getattr(connection, ending)()
            else:
                await connection.execute(sa.text(ending))
        return {"paid": True}

    result = await executed(store, paying(pay))
    assert result.values["note"] == "TransactionOverError"
    assert await accounts.debits() == []


async def test_a_connection_that_was_kept_can_do_nothing_behind_its_block(store: SQLCheckpointStore, accounts: Accounts) -> None:
    kept: list[Any] = []

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        kept.append(connection)
        with pytest.raises(TransactionOverError, match="inside"):
            await debit(connection, ctx, 8)
        return {"paid": True}

    await executed(store, paying(pay))
    with pytest.raises((TransactionOverError, sa.exc.ResourceClosedError)):
        await kept[0].execute(sa.text("SELECT 1"))
    assert await accounts.debits() == [7]


async def test_what_has_a_commit_of_its_own_is_refused_inside_and_behind_the_block(store: SQLCheckpointStore, accounts: Accounts) -> None:
    refused: list[str] = []

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async def tried(call: Callable[[], Any]) -> None:
            with pytest.raises(TransactionOverError) as error:
                await call()
            refused.append(str(error.value).split("(", maxsplit=1)[0])

        async def another() -> None:
            async with ctx.transaction():
                pass

        async with ctx.transaction() as connection:
            await debit(connection, ctx)
            await tried(lambda: ctx.once("x", lambda: 1))
            await tried(lambda: ctx.wait_for("x"))
        await tried(another)
        return {"paid": True}

    await executed(store, paying(pay))
    assert refused == ["ctx.once", "ctx.wait_for", "ctx.transaction"]
    assert await accounts.debits() == [7]


async def test_one_that_takes_too_long_is_rolled_back_and_named(store: SQLCheckpointStore, accounts: Accounts) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction(limit=timedelta(milliseconds=60) if ctx.attempt == 1 else None) as connection:
            await debit(connection, ctx)
            for amount in itertools.count(8) if ctx.attempt == 1 else ():
                await debit(connection, ctx, amount)  # until the time is over
        return {"paid": True}

    result = await executed(store, alone(pay, retry=AT_ONCE))
    assert result.values["paid"] is True
    assert await accounts.debits() == [7]
    errors = [row async for row in store.history(result.run_id) if row.kind == "retry"]
    assert len(errors) == 1
    assert b"TransactionTimeoutError" in errors[0].payload


@pytest.mark.parametrize("until", ["its time is up", "it is rolled back"])
async def test_time_also_runs_behind_the_block(
    store: SQLCheckpointStore, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    """Also where the body returns while its transaction is just being rolled back: a step without its transaction is no step."""
    begun: list[Any] = []
    transaction = store.transaction

    def remembered(**options: Any) -> Any:
        begun.append(transaction(**options))
        return begun[-1]

    monkeypatch.setattr(store, "transaction", remembered)

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction(limit=timedelta(milliseconds=60)) as connection:
            await debit(connection, ctx)
        while begun[-1].over is None if until == "its time is up" else begun[-1].is_begun:
            await asyncio.sleep(0)
        return {"paid": True}

    graph = paying(pay, on=TransactionTimeoutError)
    assert (await executed(store, graph)).values == {"amount": 7, "note": "TransactionTimeoutError"}
    assert await accounts.debits() == []


async def test_a_body_that_returns_while_its_block_is_still_open_has_failed(store: SQLCheckpointStore, accounts: Accounts) -> None:
    """What is in the block may be half of what was to be written."""
    left_behind: list[asyncio.Task[None]] = []

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        half = asyncio.Event()

        async def both() -> None:
            async with ctx.transaction() as connection:
                await debit(connection, ctx)
                half.set()
                await asyncio.Event().wait()

        left_behind.append(asyncio.create_task(both()))
        await half.wait()
        return {"paid": True}

    graph = paying(pay, on=TransactionOverError)
    assert (await executed(store, graph)).values == {"amount": 7, "note": "TransactionOverError"}
    assert await accounts.debits() == []
    left_behind[0].cancel()
    await asyncio.wait(left_behind)


async def test_a_limit_is_below_a_third_of_the_lease(url: str) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction(limit=timedelta(seconds=3)):
            pass
        return {}

    async with SQLCheckpointStore(url, lease=timedelta(seconds=6)) as store:
        with pytest.raises(RunFailedError, match="at most 2 s") as failed:
            await executed(store, alone(pay))
        assert isinstance(failed.value.__cause__, ArgumentError)


@pytest.mark.parametrize("how", ["cancel", "suspend", "timeout"])
async def test_a_body_that_is_stopped_has_committed_nothing(store: SQLCheckpointStore, accounts: Accounts, how: str) -> None:
    begun = asyncio.Event()

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
            begun.set()
            await asyncio.Event().wait()
        return {"paid": True}

    graph = alone(pay, timeout=timedelta(milliseconds=50) if how == "timeout" else None)
    async with GraphExecutor(graph, store=store) as executor:
        handle = await executor.start({"amount": 7})
        await begun.wait()
        if how == "timeout":
            with pytest.raises(RunFailedError, match="NodeTimeoutError"):
                await handle.result()
        elif how == "cancel":
            assert (await handle.cancel(by="ana")).status == "cancelled"
        else:
            assert (await handle.suspend()).status == "suspended"
    assert await accounts.debits() == []


async def test_one_that_is_rolled_back_while_it_begins_holds_nothing(
    store: SQLCheckpointStore, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may wait long for the file's lock; the run that is suspended meanwhile does not."""
    asked, may_begin, has_begun = asyncio.Event(), asyncio.Event(), asyncio.Event()
    transaction, commit = store.transaction, store.commit

    def delayed(**options: Any) -> Any:
        made: Any = transaction(**options)
        start = made._start

        async def begin() -> None:
            asked.set()
            await may_begin.wait()
            await start()
            has_begun.set()

        made._start = begin
        return made

    async def behind_its_begin(work: Any, **within: Any) -> Any:
        if any(row.kind == "suspended" for row in work.rows):
            may_begin.set()
            await has_begun.wait()
        return await commit(work, **within)

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return {"paid": True}

    monkeypatch.setattr(store, "transaction", delayed)
    monkeypatch.setattr(store, "commit", behind_its_begin)
    flow = Flow("paying", {"amount": int, "paid": bool})
    flow.add_parallel("both", [pay, branch(lambda state: {}, name="beside")])
    flow.set_entry("both").add_edge("both", END)
    async with GraphExecutor(flow.compile(), store=store) as executor:
        handle = await executor.start({"amount": 7})
        await asked.wait()
        assert (await handle.suspend()).status == "suspended"
        assert await accounts.debits() == []
        assert (await executor.resume(handle.run_id)).status == "completed"
    assert await accounts.debits() == [7]


async def test_a_process_that_lost_the_run_commits_nothing_of_it(url: str, store: SQLCheckpointStore, accounts: Accounts) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        if ctx.run_attempt == 1:
            await rival.acquire(ctx.run_id, takeover=True)
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return {"paid": True}

    async with SQLCheckpointStore(url, synchronous="OFF") as rival:
        with pytest.raises(LeaseLostError):
            await executed(store, paying(pay))
        assert await accounts.debits() == []
        # Nothing is left behind that would keep others waiting.
        (run,) = await rival.runs()
        async with GraphExecutor(paying(pay), store=rival) as executor:
            await rival.release(run.run_id, run.epoch)
            assert (await executor.resume(run.run_id)).values["paid"] is True
    assert await accounts.debits() == [7]


async def test_branches_have_their_transactions_one_after_the_other(store: SQLCheckpointStore, accounts: Accounts) -> None:
    open_now: list[str] = []
    most: list[int] = []
    begun: list[str] = []
    all_begun = asyncio.Event()

    def branch_of(name: str, amount: int, *, transacts: bool = True) -> Any:
        async def body(state: Any, ctx: StepContext) -> dict[str, Any]:
            begun.append(name)
            if len(begun) == 10:
                all_begun.set()
            if transacts:
                async with ctx.transaction() as connection:
                    await debit(connection, ctx, amount)
                    open_now.append(name)
                    most.append(len(open_now))
                    await all_begun.wait()
                    open_now.remove(name)
            return {}

        return branch(body, name=name)

    flow = Flow("paying", {"amount": int})
    bodies = [branch_of(f"pay{number}", number) for number in range(5)] + [branch_of(f"plain{n}", n, transacts=False) for n in range(5)]
    flow.add_parallel("all", bodies)
    flow.set_entry("all").add_edge("all", END)
    result = await executed(store, flow.compile())
    assert result.status == "completed"
    assert await accounts.debits() == [0, 1, 2, 3, 4]
    assert set(most) == {1}


async def test_many_runs_have_their_transactions_beside_ordinary_ones(store: SQLCheckpointStore, accounts: Accounts) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        if state["amount"] % 2:
            async with ctx.transaction() as connection:
                await debit(connection, ctx, state["amount"])
        return {"paid": True}

    async with GraphExecutor(paying(pay), store=store) as executor:
        results = await asyncio.gather(*(executor.execute({"amount": number}) for number in range(40)))
    assert {result.status for result in results} == {"completed"}
    assert await accounts.debits() == list(range(1, 40, 2))


async def test_a_sibling_that_fails_waits_for_the_transaction_and_no_longer(store: SQLCheckpointStore, accounts: Accounts) -> None:
    begun, fails_now = asyncio.Event(), asyncio.Event()

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
            begun.set()
            await fails_now.wait()
            await settled()
        return {}

    async def fails(state: Any) -> dict[str, Any]:
        await begun.wait()
        fails_now.set()
        raise ConnectionError("beside it")

    flow = Flow("paying", {"amount": int})
    flow.add_parallel("both", [pay, fails])
    flow.set_entry("both").add_edge("both", END)
    with pytest.raises(RunFailedError, match="beside it"):
        await executed(store, flow.compile())
    assert await accounts.debits() == [7]


@pytest.mark.parametrize(
    "policy",
    [SavePolicy(when="manual"), SavePolicy(when="every_n", n=100), SavePolicy(if_unavailable="degrade")],
    ids=lambda policy: policy.when,
)
async def test_a_policy_that_holds_steps_back_does_not_hold_back_one_that_has_a_transaction(
    store: SQLCheckpointStore, accounts: Accounts, policy: SavePolicy
) -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return {"paid": True}

    async def after(state: Any, ctx: StepContext) -> dict[str, Any]:
        durable.append(await store.head(ctx.run_id))
        return {"note": "after"}

    durable: list[int] = []
    flow = Flow("paying", {"amount": int, "paid": bool, "note": str})
    flow.add_node("before", lambda state: {"amount": 8}).add_node("pay", pay).add_node("after", after)
    flow.set_entry("before").add_edge("before", "pay").add_edge("pay", "after").add_edge("after", END)
    async with GraphExecutor(flow.compile(), store=store, saving=policy) as executor:
        result = await executor.execute({"amount": 7})
    assert (result.status, result.values) == ("completed", {"amount": 8, "paid": True, "note": "after"})
    assert await accounts.debits() == [7]
    assert durable == [3]


async def test_an_outage_that_a_policy_rides_out_does_not_part_a_step_from_its_transaction(
    store: SQLCheckpointStore, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = store.commit

    async def refused_once(work: Any, *, within: Any = None) -> Any:
        if within is not None and not refused:
            refused.append(True)
            raise StoreUnavailableError("the disk", "is full")
        return await commit(work, within=within)

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return {"paid": True}

    refused: list[bool] = []
    monkeypatch.setattr(store, "commit", refused_once)
    flow = Flow("paying", {"amount": int, "paid": bool, "note": str})
    flow.add_node("pay", pay).add_node("after", lambda state: {"note": "after"})
    flow.set_entry("pay").add_edge("pay", "after").add_edge("after", END)
    async with GraphExecutor(flow.compile(), store=store, saving=SavePolicy(if_unavailable="degrade")) as executor:
        with pytest.raises(StoreUnavailableError):
            await executor.execute({"amount": 7})
        (run,) = await store.runs()
        assert (await executor.resume(run.run_id)).values["note"] == "after"
    assert await accounts.debits() == [7]


async def test_a_store_in_memory_says_which_store_has_transactions() -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction():
            pass
        return {}

    async with MemoryCheckpointStore() as memory:
        with pytest.raises(RunFailedError, match="use SQLCheckpointStore") as failed:
            await executed(memory, alone(pay))
        assert isinstance(failed.value.__cause__, TransactionUnavailableError)


async def test_a_run_that_breaks_a_contract_is_quarantined_without_its_transaction(
    store: SQLCheckpointStore, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(passed=False, run_id="r", problems=("a count is wrong",), findings=("a count is wrong",))

    monkeypatch.setattr("engine.checking.check_run", broken)
    monkeypatch.setattr("engine.executor.ContractError", lambda _found: ConnectionError("a contract is broken"))

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await debit(connection, ctx)
        return {"paid": True}

    async with GraphExecutor(alone(pay), store=store, strict=True) as executor:
        handle = await executor.start({"amount": 7})
        with pytest.raises(ConnectionError):
            await handle.result()
    assert (await store.run(handle.run_id)).status == "quarantined"
    assert await accounts.debits() == []
