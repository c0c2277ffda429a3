"""Cross-database operations of a real sidecar on real engines: the promises of each mode."""

import asyncio
import uuid
from typing import Any

import pytest

from conformance.cross_db_lab import PATH, ask, environment, query, sql
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, Start, eventually


def key() -> str:
    return f"k-{uuid.uuid4()}"


def redis(identity: str, *command: Any, **members: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "targetDatabase": "dragonflydb",
        "query": list(command),
        **members,
    }


@pytest.fixture
def sidecar(
    postgresql: EngineServer, dragonflydb: EngineServer, start_sidecar: Start
) -> SidecarProcess:
    return start_sidecar(**environment(a=postgresql, b=dragonflydb))


@pytest.fixture
async def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    made = connect(sidecar)
    await query(made, "postgresql", "DROP TABLE IF EXISTS account")
    await query(made, "postgresql", "CREATE TABLE account (id text PRIMARY KEY, balance int)")
    await query(made, "postgresql", "INSERT INTO account VALUES ('ada', 100), ('bob', 100)")
    return made


def move(identity: str, who: str, amount: int, **members: Any) -> dict[str, Any]:
    text = "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING id, balance"
    return sql(identity, text, who, amount, **members)


async def balances(client: SidecarClient) -> dict[str, int]:
    rows = await query(client, "postgresql", "SELECT id, balance FROM account")
    return {row["id"]: row["balance"] for row in rows}


async def test_reads_run_together_and_answer_each_with_a_status(client: SidecarClient) -> None:
    await query(client, "dragonflydb", ["SET", "name:ada", "Ada"])

    reply = await ask(
        client,
        operations=[
            sql("account", "SELECT id, balance FROM account WHERE id = $1", "ada"),
            redis("name", "GET", "name:ada"),
            sql("none", "SELECT nonsense"),
            sql("again", "SELECT $1::text AS who", {"$ref": "account.data.0.id"}),
            sql("never", "SELECT $1::text AS who", {"$ref": "none.data.0.id"}),
        ],
    )

    assert reply.status == 200
    assert reply.body["mode"] == "read"
    found = {each["id"]: each for each in reply.body["operations"]}
    assert [found[name]["status"] for name in found] == [200, 200, 422, 200, 424]
    assert found["account"]["data"] == [{"id": "ada", "balance": 100}]
    assert found["name"]["data"] == "Ada"
    assert found["again"]["data"] == [{"who": "ada"}]
    assert found["account"]["meta"]["database"] == "postgresql"


async def test_reads_that_write_are_refused_by_the_engine(client: SidecarClient) -> None:
    reply = await ask(client, mode="read", operations=[move("a", "ada", 1)])

    assert reply.status == 200
    assert reply.body["operations"][0]["status"] == 403
    assert (await balances(client))["ada"] == 100


async def test_an_outbox_commits_and_then_applies_the_rest(client: SidecarClient) -> None:
    reply = await ask(
        client,
        operations=[
            redis("note", "SET", "note:1", {"$opId": True}),
            move("debit", "ada", -10),
        ],
    )

    assert reply.status == 200, reply.body
    assert (reply.body["mode"], reply.body["state"]) == ("outbox", "committed")
    assert [each["state"] for each in reply.body["operations"]] == ["committed", "committed"]
    assert reply.body["operations"][1]["data"] == [{"id": "ada", "balance": 90}]
    assert uuid.UUID(await query(client, "dragonflydb", ["GET", "note:1"]))
    found = await client.get(f"{PATH}/{reply.body['id']}")
    assert (found.status, found.body) == (200, reply.body)


async def test_an_outbox_whose_transaction_is_refused_leaves_nothing(client: SidecarClient) -> None:
    same = key()
    operations = [
        move("debit", "ada", -10),
        sql("bad", "INSERT INTO account VALUES ('ada', 1)"),
        redis("note", "SET", "note:2", "x"),
    ]

    reply = await ask(client, same, operations=operations)

    assert reply.status == 424, reply.body
    assert reply.body["code"] == "operation_failed"
    assert reply.body["state"] == "failed"
    assert [each["state"] for each in reply.body["operations"]] == ["skipped", "failed", "skipped"]
    assert reply.body["operations"][1]["problem"]["code"] == "conflict"
    assert (await balances(client))["ada"] == 100
    assert await query(client, "dragonflydb", ["GET", "note:2"]) is None
    again = await ask(client, same, operations=operations)
    assert (again.status, again.body) == (424, reply.body)


async def test_a_refused_delivery_is_a_dead_letter_and_so_is_what_needs_it(
    client: SidecarClient,
) -> None:
    await query(client, "dragonflydb", ["SET", "text:1", "x"])

    reply = await ask(
        client,
        operations=[
            move("debit", "ada", -10),
            redis("bad", "HSET", "text:1", "field", "1"),
            redis("after", "SET", "after:1", "x", dependsOn=["bad"]),
            redis("beside", "SET", "beside:1", "x"),
        ],
    )

    assert reply.status == 500, reply.body
    assert (reply.body["code"], reply.body["state"]) == ("compensation_failed", "dead")
    states = [each["state"] for each in reply.body["operations"]]
    assert states == ["committed", "dead", "skipped", "committed"]
    assert [each["id"] for each in reply.body["needsHuman"]] == ["bad", "after"]
    assert (await balances(client))["ada"] == 90


async def test_a_saga_runs_in_the_order_of_its_needs(client: SidecarClient) -> None:
    reply = await ask(
        client,
        mode="saga",
        operations=[
            move("credit", "bob", 10, dependsOn=["note"]),
            move("debit", "ada", -10, compensate={"query": "SELECT 1"}),
            redis("note", "SET", "note:3", {"$ref": "debit.data.0.balance"}),
        ],
    )

    assert (reply.status, reply.body["state"]) == (200, "committed"), reply.body
    assert await query(client, "dragonflydb", ["GET", "note:3"]) == "90"
    assert await balances(client) == {"ada": 90, "bob": 110}


async def test_a_reference_to_what_stands_behind_is_refused_with_its_place(
    client: SidecarClient,
) -> None:
    operations = [
        redis("note", "SET", "note:4", {"$ref": "debit.data.0.balance"}),
        move("debit", "ada", -10),
    ]

    reply = await ask(client, mode="saga", operations=operations)

    assert reply.status == 400
    assert "operations[0].query[2]" in reply.body["detail"]


async def test_a_saga_that_fails_is_compensated_in_reverse(client: SidecarClient) -> None:
    await query(client, "postgresql", "DROP TABLE IF EXISTS history")
    await query(client, "postgresql", "CREATE TABLE history (n serial, what text, op uuid)")

    def step(name: str, **members: Any) -> dict[str, Any]:
        text = "INSERT INTO history (what, op) VALUES ($1, $2) RETURNING n"
        undo = {"query": text, "params": [f"undo {name}", {"$opId": True}]}
        return sql(name, text, name, {"$opId": True}, compensate=undo, **members)

    reply = await ask(
        client,
        mode="saga",
        operations=[step("one"), step("two"), step("three"), sql("bad", "SELECT 1/0")],
    )

    assert reply.status == 424, reply.body
    assert reply.body["state"] == "compensated"
    states = [each["state"] for each in reply.body["operations"]]
    assert states == ["compensated", "compensated", "compensated", "failed"]
    assert reply.body["operations"][0]["compensation"] == {
        "state": "committed",
        "status": 200,
        "rowCount": 1,
    }
    rows = await query(client, "postgresql", "SELECT what, op FROM history ORDER BY n")
    assert [row["what"] for row in rows] == [
        "one",
        "two",
        "three",
        "undo three",
        "undo two",
        "undo one",
    ]
    assert rows[0]["op"] == rows[5]["op"] != rows[1]["op"]


async def test_a_failing_compensation_is_named_and_the_others_are_done(
    client: SidecarClient,
) -> None:
    back = {"query": "UPDATE account SET balance = balance + 10 WHERE id = 'ada'", "params": []}

    reply = await ask(
        client,
        mode="saga",
        operations=[
            move("debit", "ada", -10, compensate=back),
            move("credit", "bob", 10, compensate={"query": "SELECT 1/0", "params": []}),
            redis("kept", "SET", "kept:1", "x"),
            sql("bad", "SELECT 1/0"),
        ],
    )

    assert reply.status == 500, reply.body
    assert (reply.body["code"], reply.body["state"]) == ("compensation_failed", "dead")
    assert [each["id"] for each in reply.body["needsHuman"]] == ["credit", "kept"]
    assert "refused" in reply.body["needsHuman"][0]["why"]
    assert "no compensation" in reply.body["needsHuman"][1]["why"]
    assert await balances(client) == {"ada": 100, "bob": 110}


async def test_atomic_is_one_transaction_or_nothing(client: SidecarClient) -> None:
    good = await ask(
        client, mode="atomic", operations=[move("debit", "ada", -10), move("credit", "bob", 10)]
    )
    bad = await ask(
        client, mode="atomic", operations=[move("debit", "ada", -10), sql("bad", "SELECT 1/0")]
    )
    refused = await ask(
        client, mode="atomic", operations=[move("debit", "ada", -10), redis("a", "SET", "a", "b")]
    )

    assert (good.status, good.body["state"]) == (200, "committed")
    assert (bad.status, bad.body["state"]) == (424, "failed")
    assert (refused.status, refused.body["code"]) == (422, "not_atomic")
    assert await balances(client) == {"ada": 90, "bob": 110}


async def test_one_key_is_one_operation(client: SidecarClient) -> None:
    same, operations = key(), [move("debit", "ada", -10)]

    replies = await asyncio.gather(*(ask(client, same, operations=operations) for _ in range(8)))
    other = await ask(client, same, operations=[move("debit", "ada", -11)])
    field = await ask(client, operations=operations, idempotencyKey=same, timeoutMs=999)
    both = await ask(client, same, operations=operations, idempotencyKey="another")

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body["id"] for reply in replies}) == 1
    assert (other.status, other.body["code"]) == (409, "idempotency_conflict")
    assert (field.status, field.body) == (200, replies[0].body)
    assert both.status == 400
    assert (await balances(client))["ada"] == 90
    found = await client.get(f"{PATH}/{same}")
    assert found.body == replies[0].body
    assert (await client.get(f"{PATH}/nobody")).status == 404


async def test_what_could_be_applied_twice_is_refused_before_anything_runs(
    client: SidecarClient,
) -> None:
    operations = [move("debit", "ada", -10), redis("count", "INCR", "counter:1")]

    refused = await ask(client, operations=operations)
    operations[1]["idempotent"] = True
    taken = await ask(client, operations=operations)

    assert (refused.status, refused.body["code"]) == (422, "not_idempotent")
    assert "operations[1]" in refused.body["detail"]
    assert (taken.status, (await balances(client))["ada"]) == (200, 90)


async def test_a_long_operation_goes_on_after_its_caller_was_told_to_poll(
    client: SidecarClient,
) -> None:
    reply = await ask(
        client,
        mode="saga",
        timeoutMs=200,
        operations=[sql("slow", "SELECT pg_sleep(1)::text"), move("debit", "ada", -10)],
    )

    assert reply.status == 202, reply.body
    assert reply.body["state"] == "running"
    place = reply.headers["Location"]

    async def committed() -> bool:
        return bool((await client.get(place)).body["state"] == "committed")

    await eventually(committed)
    assert (await balances(client))["ada"] == 90


async def test_who_is_told_that_nobody_knows_has_the_key_to_ask_again_with(
    client: SidecarClient,
) -> None:
    operations = [sql("slow", "SELECT pg_sleep(1)::text")]
    reply = await ask(client, mode="outbox", timeoutMs=200, operations=operations)

    assert (reply.status, reply.body["code"]) == (504, "outcome_unknown")
    assert reply.headers["Idempotency-Key"] == reply.body["idempotencyKey"]
    assert reply.headers["Location"].endswith(reply.body["id"])

    again = await ask(
        client, reply.headers["Idempotency-Key"], mode="outbox", operations=operations
    )
    assert (again.status, again.body["state"]) == (200, "committed")


async def test_each_operation_is_counted_once_by_how_it_ended(
    sidecar: SidecarProcess, client: SidecarClient, connect: Connect
) -> None:
    same, ping = key(), redis("ping", "PING")

    for _ in range(2):
        await ask(client, same, operations=[move("debit", "ada", -1), ping])
    await ask(client, mode="read", operations=[ping])
    await ask(client, mode="atomic", operations=[sql("bad", "SELECT 1/0")])
    kept = redis("kept", "SET", "kept:2", "x")
    await ask(client, mode="saga", operations=[kept, sql("bad", "SELECT 1/0")])

    page = (await connect(sidecar.metrics_url).get("/metrics")).body
    family = "plan2_sidecar_cross_db_operations_total"
    assert sorted(line for line in page.splitlines() if line.startswith(family)) == [
        f'{family}{{mode="atomic",state="dead"}} 0.0',
        f'{family}{{mode="atomic",state="failed"}} 1.0',
        f'{family}{{mode="outbox",state="committed"}} 1.0',
        f'{family}{{mode="outbox",state="dead"}} 0.0',
        f'{family}{{mode="read",state="committed"}} 1.0',
        f'{family}{{mode="saga",state="dead"}} 1.0',
    ]
