"""The ArangoDB stand-in, driven by python-arango and its asynchronous edition."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from arango import ArangoClient
from arango.database import StandardDatabase
from arango.exceptions import (
    AQLQueryExecuteError,
    CollectionCreateError,
    DocumentInsertError,
    ServerConnectionError,
    TransactionCommitError,
)
from arangoasync import ArangoClient as AsyncArangoClient
from arangoasync.auth import Auth

from fixtures.fix_engines import EngineServer


@pytest.fixture
def system(arangodb: EngineServer) -> Iterator[StandardDatabase]:
    client = ArangoClient(hosts=arangodb.url)
    yield client.db("_system", "root", arangodb.admin_password, verify=True)
    client.close()


@pytest.fixture
def graph(system: StandardDatabase, arangodb: EngineServer) -> Iterator[StandardDatabase]:
    system.create_database("graph")
    client = ArangoClient(hosts=arangodb.url)
    database = client.db("graph", "root", arangodb.admin_password)
    database.create_collection("people")
    database.create_collection("knows", edge=True)
    yield database
    client.close()
    system.delete_database("graph")
    for user in system.users():
        if user["username"] != "root":
            system.delete_user(user["username"])


def _rows(database: StandardDatabase, query: str, **bind: object) -> list[object]:
    return list(database.aql.execute(query, bind_vars=bind))


def test_documents_are_kept_read_changed_and_removed(graph: StandardDatabase) -> None:
    people = graph.collection("people")
    meta = people.insert({"_key": "ann", "age": 30, "at": {"city": "Bern", "zip": 3000}})
    people.insert_many([{"_key": "bob"}, {"_key": "cy"}])
    people.update({"_key": "ann", "at": {"zip": 3001}})
    people.replace({"_key": "bob", "age": 7})
    people.delete("cy")

    assert meta["_id"] == "people/ann"
    assert people.get("ann")["at"] == {"city": "Bern", "zip": 3001}
    assert people.get("bob")["age"] == 7
    assert people.get("cy") is None
    assert people.count() == 2
    with pytest.raises(DocumentInsertError) as taken:
        people.insert({"_key": "ann"})
    assert (taken.value.error_code, taken.value.http_code) == (1210, 409)


def test_the_subset_of_aql_answers(graph: StandardDatabase) -> None:
    for number in range(5):
        _rows(graph, "INSERT @doc INTO people", doc={"_key": f"p{number}", "n": number})
    _rows(graph, "INSERT {_from: 'people/p0', _to: 'people/p1'} INTO knows")
    _rows(graph, "INSERT {_from: 'people/p1', _to: 'people/p2'} INTO knows")

    assert _rows(graph, "RETURN 1 + 2 * 3") == [7]
    assert _rows(
        graph,
        "FOR d IN people FILTER d.n >= @low && d.n != 3 SORT d.n DESC LIMIT 2 RETURN {k: d._key}",
        low=1,
    ) == [{"k": "p4"}, {"k": "p2"}]
    assert _rows(
        graph, "FOR d IN @@c FILTER d.n IN [0, 2] SORT d.n RETURN d.n", **{"@c": "people"}
    ) == [0, 2]
    assert _rows(graph, "FOR v IN 1..2 OUTBOUND 'people/p0' knows RETURN v._key") == ["p1", "p2"]
    assert _rows(
        graph, "FOR v, e IN 1 INBOUND @start knows RETURN [v._key, e._to]", start="people/p2"
    ) == [["p1", "people/p2"]]
    assert _rows(
        graph, "UPSERT {n: 9} INSERT {n: 9, new: true} UPDATE {new: false} IN people RETURN NEW.new"
    ) == [True]
    assert _rows(
        graph, "UPSERT {n: 9} INSERT {n: 9, new: true} UPDATE {new: false} IN people RETURN NEW.new"
    ) == [False]
    assert _rows(graph, "FOR d IN people FILTER d.n == 9 REMOVE d IN people RETURN OLD.n") == [9]
    assert _rows(graph, "UPDATE 'p0' WITH {n: -1} IN people RETURN [OLD.n, NEW.n]") == [[0, -1]]
    assert _rows(graph, "FOR d IN people COLLECT WITH COUNT INTO n RETURN n") == [5]
    assert _rows(graph, "RETURN LENGTH(FOR d IN people RETURN d)") == [5]
    assert _rows(graph, "RETURN DOCUMENT('people/p1').n") == [1]


@pytest.mark.parametrize(
    ("query", "number"),
    [
        pytest.param("RETRUN 1", 1501, id="syntax"),
        pytest.param("FOR d IN nothing RETURN d", 1203, id="unknown-collection"),
        pytest.param("RETURN @missing", 1551, id="missing-parameter"),
        pytest.param("RETURN NOSUCH(1)", 1540, id="unknown-function"),
    ],
)
def test_errors_carry_arangos_number(graph: StandardDatabase, query: str, number: int) -> None:
    with pytest.raises(AQLQueryExecuteError) as refused:
        _rows(graph, query)
    assert refused.value.error_code == number


def test_a_failing_query_changes_nothing(graph: StandardDatabase) -> None:
    graph.collection("people").insert({"_key": "b"})
    with pytest.raises(AQLQueryExecuteError) as refused:
        _rows(graph, "FOR k IN ['a', 'b'] INSERT {_key: k} INTO people")

    assert refused.value.error_code == 1210
    assert not graph.collection("people").has("a")


def test_a_query_past_its_time_is_killed(graph: StandardDatabase) -> None:
    with pytest.raises(AQLQueryExecuteError) as killed:
        graph.aql.execute("RETURN SLEEP(5)", max_runtime=0.1)
    assert (killed.value.error_code, killed.value.http_code) == (1500, 410)


def test_cursors_come_in_batches(graph: StandardDatabase) -> None:
    cursor = graph.aql.execute("FOR n IN 1..25 RETURN n", batch_size=10, count=True)

    assert cursor.count() == 25
    assert len(cursor.batch()) == 10
    assert list(cursor) == list(range(1, 26))


def test_a_stream_transaction_is_kept_or_dropped_whole(graph: StandardDatabase) -> None:
    for number, end in enumerate(("commit_transaction", "abort_transaction")):
        transaction = graph.begin_transaction(write=["people"])
        transaction.collection("people").insert({"_key": f"t{number}"})
        transaction.aql.execute("INSERT {_key: @k} INTO people", bind_vars={"k": f"u{number}"})
        getattr(transaction, end)()

    keys = sorted(document["_key"] for document in graph.collection("people").all())
    assert keys == ["t0", "u0"]


def test_indexes_are_made_once_and_unique_ones_hold(graph: StandardDatabase) -> None:
    people = graph.collection("people")
    wanted = {"type": "persistent", "fields": ["mail"], "unique": True, "sparse": True}
    first, second = people.add_index(wanted), people.add_index(wanted)

    assert first["id"] == second["id"]
    people.insert({"mail": "a@b"})
    with pytest.raises(DocumentInsertError):
        people.insert({"mail": "a@b"})


def test_levels_of_access_are_enforced(
    system: StandardDatabase, graph: StandardDatabase, arangodb: EngineServer
) -> None:
    system.create_user("ro", "ro-pw")
    system.update_permission("ro", "ro", "graph")
    system.create_user("rw", "rw-pw")
    system.update_permission("rw", "rw", "graph")
    client = ArangoClient(hosts=arangodb.url)
    reader, writer = client.db("graph", "ro", "ro-pw"), client.db("graph", "rw", "rw-pw")

    writer.collection("people").insert({"_key": "x"})
    assert reader.collection("people").get("x")["_key"] == "x"
    with pytest.raises(DocumentInsertError) as refused:
        reader.collection("people").insert({})
    assert (refused.value.http_code, refused.value.error_code) == (403, 1004)
    with pytest.raises(AQLQueryExecuteError) as refused_query:
        _rows(reader, "INSERT {} INTO people")
    assert refused_query.value.http_code == 403
    with pytest.raises(CollectionCreateError):
        reader.create_collection("more")
    with pytest.raises(ServerConnectionError):
        client.db("_system", "rw", "rw-pw", verify=True)
    system.update_user("ro", "next-pw")
    with pytest.raises(ServerConnectionError):
        client.db("graph", "ro", "ro-pw", verify=True)
    client.db("graph", "ro", "next-pw", verify=True)
    client.close()


def test_availability_needs_no_login_and_the_rest_does(arangodb: EngineServer) -> None:
    with urllib.request.urlopen(f"{arangodb.url}/_admin/server/availability") as open_answer:
        assert open_answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{arangodb.url}/_api/version")
    with refused.value as answer:
        assert (answer.code, json.load(answer)["errorNum"]) == (401, 11)


async def test_the_asynchronous_client_logs_in_with_a_token(arangodb: EngineServer) -> None:
    auth = Auth(username="root", password=arangodb.admin_password)
    async with AsyncArangoClient(hosts=arangodb.url) as client:
        database = await client.db("_system", auth_method="jwt", auth=auth, verify=True)
        cursor = await database.aql.execute("FOR n IN 1..5 RETURN n", batch_size=2)
        async with cursor:
            rows = [row async for row in cursor]

        assert rows == [1, 2, 3, 4, 5]
        assert (await database.version())["version"].startswith("3.12")


async def test_data_and_users_survive_a_restart(
    system: StandardDatabase, graph: StandardDatabase, arangodb: EngineServer
) -> None:
    graph.collection("people").insert({"_key": "kept"})

    arangodb.stop()
    await asyncio.to_thread(arangodb.start)

    assert graph.collection("people").has("kept")


def test_a_plan_names_what_a_query_reads_and_writes(graph: StandardDatabase) -> None:
    plan = graph.aql.explain("FOR p IN people INSERT {_from: p._id, _to: p._id} INTO knows")

    assert isinstance(plan, dict)
    used = {each["name"]: each["type"] for each in plan["collections"]}
    assert used == {"people": "read", "knows": "write"}


def test_an_idle_stream_transaction_is_given_up(graph: StandardDatabase) -> None:
    transaction = graph.begin_transaction(write=["people"])
    transaction.collection("people").insert({"_key": "idle"})

    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            graph.collection("people").insert({"_key": "after"})
            break
        except DocumentInsertError:
            time.sleep(0.1)

    assert graph.collection("people").has("after")
    assert not graph.collection("people").has("idle")
    with pytest.raises(TransactionCommitError):
        transaction.commit_transaction()
