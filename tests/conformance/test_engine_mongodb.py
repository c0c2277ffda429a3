"""MongoDB's own promises: five forms, Extended JSON both ways, no code in the server."""

import datetime
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pymongo
import pytest
from bson import ObjectId
from pymongo import errors as theirs

from conformance.engine_cases import MONGODB, connection, opened, plain, run
from fixtures.fix_engines import EngineServer, free_port
from plan2_contract.connection import MongoDB
from plan2_contract.engines import Engine
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines.mongodb_errors import ERRORS, translate, write_problem
from plan2_sidecar.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    InvalidRequest,
    ParameterMismatch,
    PermissionDenied,
    Problem,
    QueryRejected,
    ReadOnly,
    StoreFull,
)
from plan2_sidecar.query import Query, Result

NAME = "plan2_own"
EXTENDED = {
    "_id": {"$oid": "507f1f77bcf86cd799439011"},
    "at": {"$date": "2024-02-29T01:02:03.500Z"},
    "big": 9007199254740993,
    "small": 5,
    "part": 1.5,
    "bytes": {"$binary": {"base64": "AP8=", "subType": "00"}},
    "text": "ü 🙂",
    "none": None,
    "inner": {"a": [True, {"b": 1}]},
}


@pytest.fixture
async def client(mongodb: EngineServer) -> AsyncIterator[EngineClient]:
    async with opened(Engine.MONGODB, connection(MONGODB, mongodb)) as client:
        await ask(client, filter={}, delete="many")
        yield client


async def ask(
    client: EngineClient, *, max_rows: int | None = None, read_only: bool = False, **form: Any
) -> Result:
    query = {"collection": NAME, **form}
    return await run(client, Query(query=query, max_rows=max_rows, read_only=read_only))


async def test_extended_json_goes_in_and_comes_out(client: EngineClient) -> None:
    inserted = await ask(client, documents=[EXTENDED])

    found = await ask(client, filter={"_id": EXTENDED["_id"]})

    assert plain(inserted) == [{"_id": EXTENDED["_id"]}]
    assert plain(found) == [EXTENDED]


async def test_a_number_with_more_digits_than_a_double_has_becomes_the_nearest(
    client: EngineClient,
) -> None:
    await ask(client, documents=[{"n": Decimal("0.10000000000000000001")}])

    assert plain(await ask(client, filter={}, projection={"_id": False})) == [{"n": 0.1}]
    with pytest.raises(InvalidRequest):
        await ask(client, filter={"n": Decimal("1E+400")})


async def test_the_driver_reads_the_types_that_were_meant(
    client: EngineClient, mongodb: EngineServer
) -> None:
    await ask(client, documents=[EXTENDED])

    with pymongo.MongoClient(mongodb.url, tz_aware=True) as oracle:
        document = oracle["cases"][NAME].find_one()

    assert document is not None
    assert document["_id"] == ObjectId("507f1f77bcf86cd799439011")
    assert document["at"] == datetime.datetime(2024, 2, 29, 1, 2, 3, 500_000, tzinfo=datetime.UTC)
    assert document["bytes"] == b"\x00\xff"
    assert document["big"] == 9007199254740993


async def test_documents_without_an_id_are_given_one(client: EngineClient) -> None:
    inserted = await ask(client, documents=[{"n": 1}, {"n": 2}])

    found = await ask(client, filter={}, sort={"n": 1}, projection={"_id": 1})

    assert inserted.row_count == 2
    assert plain(inserted) == plain(found)
    assert set(plain(inserted)[0]["_id"]) == {"$oid"}


async def test_find_sorts_projects_and_limits(client: EngineClient) -> None:
    await ask(client, documents=[{"_id": n, "n": -n, "m": n} for n in range(5)])

    found = await ask(
        client, filter={"_id": {"$gte": 1}}, projection={"n": 1, "_id": 0}, sort={"n": 1}, limit=2
    )

    assert plain(found) == [{"n": -4}, {"n": -3}]
    assert not found.truncated


async def test_a_pipeline_is_run(client: EngineClient) -> None:
    await ask(client, documents=[{"_id": n, "k": n % 2} for n in range(5)])

    found = await ask(
        client,
        pipeline=[{"$group": {"_id": "$k", "count": {"$sum": 1}}}, {"$sort": {"_id": 1}}],
    )

    assert plain(found) == [{"_id": 0, "count": 3}, {"_id": 1, "count": 2}]


async def test_updates_and_deletes_count_what_they_touched(client: EngineClient) -> None:
    await ask(client, documents=[{"_id": n, "k": 1} for n in range(4)])

    one = await ask(client, filter={"k": 1}, update={"$set": {"k": 2}})
    many = await ask(client, filter={"k": 1}, update={"$set": {"k": 2}}, many=True)
    new = await ask(client, filter={"_id": 9}, update={"$set": {"k": 3}}, upsert=True)
    first = await ask(client, filter={"k": 2}, delete="one")
    rest = await ask(client, filter={}, delete="many")

    assert [each.row_count for each in (one, many, new, first, rest)] == [1, 3, 1, 1, 4]
    assert all(plain(each) == [] for each in (one, many, new, first, rest))
    assert new.extra is not None
    assert bytes(new.extra["upsertedId"]) == b"9"
    assert one.extra is None


@pytest.mark.parametrize(
    "form",
    [
        {"filter": {"$where": "1"}},
        {"filter": {"$or": [{"a": 1}, {"$where": "1"}]}},
        {"filter": {"$expr": {"$function": {"body": "1", "args": [], "lang": "js"}}}},
        {"pipeline": [{"$group": {"_id": 1, "x": {"$accumulator": {}}}}]},
        {"filter": {}, "update": [{"$set": {"a": {"$function": {}}}}]},
    ],
    ids=repr,
)
async def test_code_in_the_server_is_refused(client: EngineClient, form: dict[str, Any]) -> None:
    with pytest.raises(QueryRejected) as refused:
        await ask(client, **form)

    assert refused.value.engine_code is None


@pytest.mark.parametrize(
    "form",
    [
        {"documents": [{"a": 1}]},
        {"filter": {}, "update": {"$set": {"a": 1}}},
        {"filter": {}, "delete": "many"},
        {"pipeline": [{"$match": {}}, {"$out": "elsewhere"}]},
        {"pipeline": [{"$merge": {"into": "elsewhere"}}]},
    ],
    ids=repr,
)
async def test_whatever_writes_is_no_read(client: EngineClient, form: dict[str, Any]) -> None:
    with pytest.raises(ReadOnly):
        await ask(client, read_only=True, **form)


@pytest.mark.parametrize(
    "query",
    [
        "db.c.find()",
        {"filter": {}},
        {"collection": "", "filter": {}},
        {"collection": "$cmd", "filter": {}},
        {"collection": "c", "filter": {}, "skip": 1},
        {"collection": "c", "filter": []},
        {"collection": "c", "filter": {}, "limit": -1},
        {"collection": "c", "documents": []},
        {"collection": "c", "filter": {}, "delete": "some"},
        {"collection": "c", "filter": {"_id": {"$oid": "short"}}},
        {"collection": "c", "filter": {"n": 2**70}},
    ],
    ids=repr,
)
async def test_what_is_no_query_is_refused(client: EngineClient, query: Any) -> None:
    with pytest.raises(InvalidRequest):
        await run(client, Query(query=query))


async def test_there_are_no_parameters(client: EngineClient) -> None:
    with pytest.raises(ParameterMismatch):
        await run(client, Query(query={"collection": "c", "filter": {}}, params={"a": 1}))


async def test_a_taken_key_is_a_conflict(client: EngineClient) -> None:
    await ask(client, documents=[{"_id": 1}])

    with pytest.raises(Conflict) as taken:
        await ask(client, documents=[{"_id": 1}])

    assert (taken.value.engine_code, taken.value.retryable) == ("11000", None)


async def test_an_operator_beside_a_pattern_is_kept(client: EngineClient) -> None:
    await ask(client, documents=[{"_id": 1, "t": "abc"}, {"_id": 2, "t": "abd"}])

    found = await ask(client, filter={"t": {"$regex": "^ab", "$ne": "abd"}})

    assert [row["_id"] for row in plain(found)] == [1]


async def test_reads_use_the_read_only_address(mongodb: EngineServer) -> None:
    whole = connection(MONGODB, mongodb)
    assert isinstance(whole, MongoDB)
    wrong = whole.uri.replace(mongodb.admin_password, "wrong")
    both = MongoDB(uri=whole.uri, ro_uri=wrong, database=whole.database, pool_max=3)

    async with opened(Engine.MONGODB, both) as client:
        await ask(client, filter={})
        with pytest.raises(EngineAuthFailed):
            await ask(client, filter={}, read_only=True)


@pytest.mark.parametrize(
    ("error", "problem", "retryable"),
    [
        (theirs.ServerSelectionTimeoutError("x"), EngineUnavailable, True),
        (theirs.WaitQueueTimeoutError("x"), EngineUnavailable, True),
        (theirs.NotPrimaryError("x"), EngineUnavailable, True),
        (theirs.AutoReconnect("x"), ConnectionLost, True),
        (theirs.NetworkTimeout("x"), ConnectionLost, True),
        (theirs.ExecutionTimeout("x", 50), DeadlineExceeded, None),
        (theirs.OperationFailure("x", 13), PermissionDenied, None),
        (theirs.OperationFailure("x", 18), EngineAuthFailed, True),
        (theirs.OperationFailure("x", 112), Conflict, True),
        (theirs.OperationFailure("x", 14031), StoreFull, True),
        (theirs.OperationFailure("x", 9), QueryRejected, None),
        (theirs.DuplicateKeyError("x", 11000), Conflict, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_its_problem(
    error: Exception, problem: type[Problem], retryable: bool | None
) -> None:
    found = translate(error)

    assert found is not None
    assert type(found) is problem
    assert found.retryable == retryable


DRIVER_ERRORS = sorted(
    {
        kind
        for kind in vars(theirs).values()
        if isinstance(kind, type) and issubclass(kind, theirs.PyMongoError)
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", DRIVER_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_driver_is_mapped(kind: type[Exception]) -> None:
    nearest = next(each for each in kind.__mro__ if each in ERRORS)

    if issubclass(kind, theirs.ConnectionFailure):
        assert issubclass(ERRORS[nearest], EngineUnavailable)
    if nearest is theirs.PyMongoError:
        # What is left to the root is a refused operation or document.
        refused = (theirs.OperationFailure, theirs.InvalidName, theirs.CollectionInvalid)
        known = (theirs.ProtocolError, theirs.CursorNotFound, theirs.BulkWriteError)
        rare = {"PyMongoError", "EncryptionError", "EncryptedCollectionError"}
        assert issubclass(kind, refused + known) or kind.__name__ in rare


def test_a_write_error_inside_a_good_reply_is_found() -> None:
    reply = {"ok": 1.0, "n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "taken"}]}

    problem = write_problem(reply)

    assert isinstance(problem, Conflict)
    assert problem.detail == "taken"
    assert write_problem({"ok": 1.0, "n": 1}) is None


# PyMongo forgets the socket of a refused connection; the collector then warns of it.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
async def test_a_server_that_is_away_is_so_for_callers_in_a_hurry_too() -> None:
    dead = MongoDB(uri=f"mongodb://u:p@127.0.0.1:{free_port()}/", database="d", pool_max=2)
    find = Query(query={"collection": "c", "filter": {}})
    async with opened(Engine.MONGODB, dead) as client:
        with pytest.raises(EngineUnavailable):
            await run(client, find, seconds=0.6)
        with pytest.raises(DeadlineExceeded):
            await run(client, find, seconds=0.05)
