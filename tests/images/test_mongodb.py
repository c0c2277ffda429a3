"""The MongoDB front over FerretDB, driven by PyMongo's asynchronous client."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure

from fixtures.fix_engines import EngineServer

PROGRAMS = Path(__file__).parent / "mongodb"


def _client(server: EngineServer, user: str, password: str, **options: object) -> AsyncMongoClient:
    return AsyncMongoClient(
        server.host,
        server.port,
        username=user,
        password=password,
        authSource=options.pop("source", "admin"),
        serverSelectionTimeoutMS=3000,
        **options,
    )


@pytest.fixture
async def root(mongodb: EngineServer) -> AsyncIterator[AsyncMongoClient]:
    client = _client(mongodb, "root", mongodb.admin_password)
    yield client
    await client.drop_database("app")
    await client.app.command("dropAllUsersFromDatabase")
    await client.close()


async def test_documents_go_in_and_come_out(root: AsyncMongoClient) -> None:
    things = root.app.things
    await things.insert_many([{"_id": n, "n": n} for n in range(250)], ordered=False)
    await things.update_one({"_id": 1}, {"$set": {"n": -1}})
    await things.delete_one({"_id": 2})

    found = [row["n"] async for row in things.find({"n": {"$lt": 5}}).sort("n")]
    grouped = await (await things.aggregate([{"$match": {"n": {"$gte": 240}}}])).to_list()

    assert found == [-1, 0, 3, 4]
    assert len(grouped) == 10
    assert len(await things.find().batch_size(20).to_list()) == 249
    with pytest.raises(DuplicateKeyError):
        await things.insert_one({"_id": 1})


async def test_it_is_the_primary_of_its_set(root: AsyncMongoClient, mongodb: EngineServer) -> None:
    hello = await root.admin.command("hello")
    status = await root.admin.command("replSetGetStatus")

    assert (hello["setName"], hello["isWritablePrimary"]) == ("rs0", True)
    assert status["members"][0]["stateStr"] == "PRIMARY"
    with pytest.raises(OperationFailure) as again:
        await root.admin.command("replSetInitiate", {"_id": "rs0"})
    assert again.value.code == 23


async def test_a_client_that_names_the_set_finds_it(mongodb: EngineServer) -> None:
    client = _client(mongodb, "root", mongodb.admin_password, replicaSet="rs0")

    assert (await client.admin.command("ping"))["ok"] == 1
    await client.close()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_a_wrong_password_fails_by_either_mechanism(
    mongodb: EngineServer, mechanism: str
) -> None:
    right = _client(mongodb, "root", mongodb.admin_password, authMechanism=mechanism)
    assert await right.app.list_collection_names() == []
    await right.close()

    wrong = _client(mongodb, "root", "wrong", authMechanism=mechanism)
    with pytest.raises(OperationFailure) as refused:
        await wrong.app.things.find_one()
    assert refused.value.code == 18
    await wrong.close()


async def test_without_a_login_only_the_handshake_works(mongodb: EngineServer) -> None:
    client: AsyncMongoClient = AsyncMongoClient(mongodb.host, mongodb.port)
    assert (await client.admin.command("ping"))["ok"] == 1
    with pytest.raises(OperationFailure) as refused:
        await client.app.things.insert_one({})
    assert refused.value.code == 13
    await client.close()


async def test_a_reader_reads_and_does_not_write(
    root: AsyncMongoClient, mongodb: EngineServer
) -> None:
    await root.app.things.insert_one({"_id": 1})
    await root.app.command("createUser", "ro", pwd="ro-pw", roles=["read"])
    reader = _client(mongodb, "ro", "ro-pw", source="app")

    assert await reader.app.things.find_one() == {"_id": 1}
    for refused_call in (
        reader.app.things.insert_one({}),
        reader.other.things.find_one(),
        reader.app.command("createUser", "x", pwd="x", roles=[]),
        reader.drop_database("app"),
    ):
        with pytest.raises(OperationFailure) as refused:
            await refused_call
        assert refused.value.code == 13
    await reader.close()


async def test_a_user_changes_password_and_roles(
    root: AsyncMongoClient, mongodb: EngineServer
) -> None:
    role = {"role": "readWrite", "db": "app"}
    await root.app.command("createUser", "rw", pwd="old", roles=["read"])
    await root.app.command("updateUser", "rw", pwd="new", roles=[role])
    shown = (await root.app.command("usersInfo", "rw"))["users"]

    assert shown[0]["roles"] == [role]
    writer = _client(mongodb, "rw", "new", source="app")
    await writer.app.things.insert_one({"_id": 9})
    await writer.close()
    with pytest.raises(OperationFailure):
        await root.app.command("updateUser", "nobody", pwd="x")


async def test_data_users_and_set_survive_a_restart(
    root: AsyncMongoClient, mongodb: EngineServer
) -> None:
    await root.app.things.insert_one({"_id": "kept"})

    mongodb.stop()
    await asyncio.to_thread(mongodb.start)

    fresh = _client(mongodb, "root", mongodb.admin_password)
    assert await fresh.app.things.find_one() == {"_id": "kept"}
    await fresh.close()


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-secret")
    key.chmod(0o440)
    command = [sys.executable, str(PROGRAMS / "mongod.py"), "mongod", f"--keyFile={key}"]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)

    assert ended.returncode == 1
    assert "too open" in ended.stderr


async def test_a_transaction_is_kept_whole_or_not_at_all(root: AsyncMongoClient) -> None:
    things = root.transactions.things
    await things.insert_one({"_id": 1, "n": 0})

    async def count() -> None:
        async with root.start_session() as session, await session.start_transaction():
            await things.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
            await root.transactions.others.insert_one({"_id": 1}, session=session)

    await count()
    with pytest.raises(DuplicateKeyError):
        await count()

    assert await things.find().to_list() == [{"_id": 1, "n": 1}]
    assert await root.transactions.others.find().to_list() == [{"_id": 1}]


async def test_a_client_that_leaves_takes_its_transaction_along(
    root: AsyncMongoClient, mongodb: EngineServer
) -> None:
    leaver = _client(mongodb, "root", mongodb.admin_password)
    session = leaver.start_session()
    await session.start_transaction()
    await leaver.left.things.insert_one({"_id": 1}, session=session)
    waiting = asyncio.create_task(root.left.things.find().to_list())
    await asyncio.sleep(0.1)
    assert not waiting.done()

    await leaver.close()

    assert await waiting == []
