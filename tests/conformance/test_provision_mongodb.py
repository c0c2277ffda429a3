"""Provisioning MongoDB: the replica set and the users, on a front that answers MongoDB's words."""

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from fixtures.fix_engines import EngineServer, free_port, make_mongodb, run
from fixtures.provisioning import admin_secret, provision, refusal
from plan2_operator.provision import Reason

Admin = dict[str, str]
UNAUTHORIZED, AUTHENTICATION_FAILED, NOT_YET_INITIALIZED = 13, 18, 94


def listening(server: EngineServer) -> bool:
    """Ready for a test that initiates the replica set by itself."""
    with socket.socket() as probe:
        return probe.connect_ex((server.host, server.port)) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[EngineServer]:
    """As a first start leaves it: `root`, no replica set."""
    with run(replace(make_mongodb(), ready=listening)) as server:
        yield server


@pytest.fixture
def admin(server: EngineServer) -> Admin:
    return admin_secret(server)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    return f"of-{abs(hash(request.node.name)):x}"


@asynccontextmanager
async def client(
    server: EngineServer, user: str, password: str, source: str
) -> AsyncIterator[AsyncMongoClient]:
    connection: AsyncMongoClient = AsyncMongoClient(
        server.host,
        server.port,
        username=user,
        password=password,
        authSource=source,
        directConnection=True,
        serverSelectionTimeoutMS=3000,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_fresh_server_becomes_the_primary_under_the_name_it_was_reached_by(
    server: EngineServer, admin: Admin
) -> None:
    async with client(server, "root", admin["password"], "admin") as root:
        with pytest.raises(OperationFailure) as before:
            await root.admin.command("replSetGetStatus")

        await provision(server, admin, host="localhost")

        hello = await root.admin.command("hello")
    assert before.value.code == NOT_YET_INITIALIZED
    assert hello["isWritablePrimary"]
    assert hello["hosts"] == [f"localhost:{server.port}"]


async def test_the_application_user_writes_reads_and_administers_nothing(
    server: EngineServer, admin: Admin, database: str
) -> None:
    await provision(server, admin, database=database)

    async with client(server, "plan2_app", admin["app-password"], database) as app:
        await app[database].things.insert_one({"_id": 1, "note": "one"})
        assert await app[database].things.find_one({"_id": 1}) == {"_id": 1, "note": "one"}
        for where, command in (
            (database, {"createUser": "other", "pwd": "x", "roles": []}),
            ("another", {"insert": "things", "documents": [{"_id": 1}]}),
            ("admin", {"replSetGetConfig": 1}),
        ):
            with pytest.raises(OperationFailure) as refused:
                await app[where].command(command)
            assert refused.value.code == UNAUTHORIZED


async def test_the_read_only_user_reads_and_does_not_write(
    server: EngineServer, admin: Admin, database: str
) -> None:
    await provision(server, admin, database=database)

    async with client(server, "plan2_ro", admin["ro-password"], database) as ro:
        assert await ro[database].things.find_one({"_id": 1}) is None
        with pytest.raises(OperationFailure) as refused:
            await ro[database].things.insert_one({"_id": 1})
    assert refused.value.code == UNAUTHORIZED


async def test_a_second_run_changes_no_user(
    server: EngineServer, admin: Admin, database: str
) -> None:
    await provision(server, admin, database=database)
    before = await users(server, database)

    await provision(server, admin, database=database)

    assert await users(server, database) == before


async def users(server: EngineServer, database: str) -> list[str]:
    """Everything the server says of them, their keys (each with its own salt) too."""
    async with client(server, "root", server.admin_password, "admin") as root:
        question = {"usersInfo": 1, "showCredentials": True}
        told = (await root[database].command(question))["users"]
    files = sorted(server.data.rglob("users.json"))
    kept = [file.read_text() for file in files]
    assert kept, "the stand-in keeps its users in a file"
    return [json.dumps(told, default=str), *kept]


async def test_a_changed_password_is_taken_over(
    server: EngineServer, admin: Admin, database: str
) -> None:
    await provision(server, admin, database=database)
    changed = admin | {"app-password": "p@ss:w/rd%ö"}

    await provision(server, changed, database=database)

    async with client(server, "plan2_app", changed["app-password"], database) as app:
        await app[database].command("ping")
    async with client(server, "plan2_app", admin["app-password"], database) as app:
        with pytest.raises(OperationFailure) as refused:
            await app[database].command("ping")
    assert refused.value.code == AUTHENTICATION_FAILED


async def test_roles_changed_by_hand_are_put_right(
    server: EngineServer, admin: Admin, database: str
) -> None:
    await provision(server, admin, database=database)
    async with client(server, "root", admin["password"], "admin") as root:
        await root[database].command("updateUser", "plan2_ro", roles=["readWrite"])

    await provision(server, admin, database=database)

    async with client(server, "plan2_ro", admin["ro-password"], database) as ro:
        with pytest.raises(OperationFailure) as refused:
            await ro[database].things.insert_one({"_id": 1})
    assert refused.value.code == UNAUTHORIZED


async def test_a_wrong_administrators_password_is_named_with_what_can_be_behind_it(
    server: EngineServer, admin: Admin
) -> None:
    error = await refusal(server, admin | {"password": "not-the-password"})

    assert "login of 'root'" in str(error)
    assert "no user at all" in str(error)
    assert (error.reason, error.retry) == (Reason.CREDENTIALS_MISMATCH, False)


async def test_a_server_that_does_not_answer_can_be_tried_again(
    server: EngineServer, admin: Admin
) -> None:
    error = await refusal(replace(server, port=free_port()), admin, seconds=2.0)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)
