"""Provisioning ArangoDB: database, users, rights, collections; on a stand-in for its HTTP API."""

import socket
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from fixtures.fix_engines import EngineServer, free_port
from fixtures.provisioning import admin_secret, provision, refusal
from plan2_operator.provision import Reason

Admin = dict[str, str]
APP, RO = ("plan2_app", "app-password"), ("plan2_ro", "ro-password")


@pytest.fixture
def admin(arangodb: EngineServer) -> Admin:
    return admin_secret(arangodb)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    return f"of-{abs(hash(request.node.name)):x}"


async def ask(
    server: EngineServer, login: tuple[str, str], method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    headers = {"Authorization": aiohttp.encode_basic_auth(*login)}
    async with (
        aiohttp.ClientSession(server.url, headers=headers) as http,
        http.request(method, path, json=body) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


def of(admin: Admin, role: tuple[str, str]) -> tuple[str, str]:
    return role[0], admin[role[1]]


async def as_root(server: EngineServer, method: str, path: str, body: Any = None) -> Any:
    status, answer = await ask(
        server, (server.admin_user, server.admin_password), method, path, body
    )
    assert status < 300, answer
    return answer


async def test_the_application_user_creates_writes_and_reads(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    await provision(arangodb, admin, database=database)
    login, place = of(admin, APP), f"/_db/{database}/_api"

    status, _ = await ask(arangodb, login, "POST", f"{place}/collection", {"name": "things"})
    assert status == 200
    status, _ = await ask(arangodb, login, "POST", f"{place}/document/things", {"_key": "1"})
    assert status in (201, 202)
    status, read = await ask(arangodb, login, "GET", f"{place}/document/things/1")
    assert (status, read["_key"]) == (200, "1")


async def test_the_application_user_is_no_administrator(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    await provision(arangodb, admin, database=database)

    for path, body in (("database", {"name": "other"}), ("user", {"user": "other"})):
        status, _ = await ask(arangodb, of(admin, APP), "POST", f"/_db/_system/_api/{path}", body)
        assert status in (401, 403)


async def test_the_read_only_user_reads_and_does_not_write(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    collections = [{"name": "things"}]
    await provision(arangodb, admin, database=database, collections=collections)
    place = f"/_db/{database}/_api"
    await ask(arangodb, of(admin, APP), "POST", f"{place}/document/things", {"_key": "1"})

    status, _ = await ask(arangodb, of(admin, RO), "GET", f"{place}/document/things/1")
    assert status == 200
    status, _ = await ask(arangodb, of(admin, RO), "POST", f"{place}/document/things", {})
    assert status == 403


async def test_collections_have_the_type_that_was_asked(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    collections = [{"name": "people"}, {"name": "knows", "type": "edge"}]

    await provision(arangodb, admin, database=database, collections=collections)

    listed = await as_root(arangodb, "GET", f"/_db/{database}/_api/collection")
    types = {found["name"]: found["type"] for found in listed["result"]}
    assert (types["people"], types["knows"]) == (2, 3)


async def test_a_second_run_changes_nothing(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    collections = [{"name": "people"}]
    await provision(arangodb, admin, database=database, collections=collections)
    before = await state(arangodb, database)

    await provision(arangodb, admin, database=database, collections=collections)

    assert await state(arangodb, database) == before


async def state(server: EngineServer, database: str) -> list[Any]:
    return [
        await as_root(server, "GET", "/_api/database"),
        await as_root(server, "GET", "/_api/user"),
        await as_root(server, "GET", "/_api/user/plan2_app/database?full=true"),
        await as_root(server, "GET", "/_api/user/plan2_ro/database?full=true"),
        await as_root(server, "GET", f"/_db/{database}/_api/collection"),
    ]


async def test_a_changed_password_is_taken_over(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    await provision(arangodb, admin, database=database)
    changed = admin | {"app-password": "another:one"}

    await provision(arangodb, changed, database=database)

    path = f"/_db/{database}/_api/version"
    assert (await ask(arangodb, of(changed, APP), "GET", path))[0] == 200
    assert (await ask(arangodb, of(admin, APP), "GET", path))[0] == 401


async def test_a_right_changed_by_hand_is_put_right(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    await provision(arangodb, admin, database=database, collections=[{"name": "things"}])
    for place in (database, f"{database}/*"):
        await as_root(arangodb, "PUT", f"/_api/user/plan2_ro/database/{place}", {"grant": "rw"})

    await provision(arangodb, admin, database=database, collections=[{"name": "things"}])

    path = f"/_db/{database}/_api/document/things"
    assert (await ask(arangodb, of(admin, RO), "POST", path, {}))[0] == 403


async def test_a_collection_of_another_type_is_named(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    await provision(arangodb, admin, database=database, collections=[{"name": "knows"}])

    error = await refusal(
        arangodb, admin, database=database, collections=[{"name": "knows", "type": "edge"}]
    )

    assert str(error) == "collection 'knows' is there, of type document, not edge"
    assert (error.reason, error.retry) == (Reason.BOOTSTRAP_FAILED, False)


async def test_a_bad_collection_is_named_with_the_engines_message(
    arangodb: EngineServer, admin: Admin, database: str
) -> None:
    error = await refusal(arangodb, admin, database=database, collections=[{"name": "with/slash"}])

    assert str(error).startswith("collection 'with/slash': [HTTP 400][ERR 1208]")
    assert (error.reason, error.retry) == (Reason.BOOTSTRAP_FAILED, False)


async def test_a_wrong_administrators_password_is_named(
    arangodb: EngineServer, admin: Admin
) -> None:
    error = await refusal(arangodb, admin | {"password": "not-the-password"})

    assert "login of 'root'" in str(error)
    assert (error.reason, error.retry) == (Reason.CREDENTIALS_MISMATCH, False)


async def test_a_server_that_does_not_answer_can_be_tried_again(
    arangodb: EngineServer, admin: Admin
) -> None:
    error = await refusal(replace(arangodb, port=free_port()), admin)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)


async def test_a_server_that_says_nothing_is_left_at_the_deadline(
    arangodb: EngineServer, admin: Admin
) -> None:
    # Nobody accepts what it connects to.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        error = await refusal(replace(arangodb, port=port), admin, seconds=0.5)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)
