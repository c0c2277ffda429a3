"""Provisioning the real Weaviate: its keys are checked, missing collections are made."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from fixtures.fix_engines import EngineServer, free_port, make_weaviate, run
from fixtures.provisioning import made_secret, provision, refusal
from plan2_operator.provision import Reason

Admin = dict[str, str]


@pytest.fixture(scope="module")
def admin() -> Admin:
    return made_secret("weaviate", {})


@pytest.fixture(scope="module")
def server(admin: Admin) -> Iterator[EngineServer]:
    """With two keys, as the operator deploys it."""
    made = make_weaviate()
    keys = {
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": f"{admin['api-key']},{admin['app-api-key']}",
        "AUTHENTICATION_APIKEY_USERS": "plan2-admin,plan2-app",
        "AUTHORIZATION_ADMINLIST_ENABLED": "false",
    }
    with run(replace(made, environment={**made.environment, **keys})) as server:
        yield server


async def ask(
    server: EngineServer, key: str, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(server.url, headers=headers) as http,
        http.request(method, path, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def test_missing_collections_are_made_and_the_application_uses_them(
    server: EngineServer, admin: Admin
) -> None:
    wanted = {"class": "Article", "vectorizer": "none"}

    await provision(server, admin, collections=[wanted])

    made = {"class": "Article", "properties": {"title": "one"}, "vector": [0.1, 0.2]}
    status, created = await ask(server, admin["app-api-key"], "POST", "/v1/objects", made)
    assert status == 200
    path = f"/v1/objects/Article/{created['id']}"
    status, read = await ask(server, admin["app-api-key"], "GET", path)
    assert (status, read["properties"]) == (200, {"title": "one"})


async def test_a_second_run_leaves_a_collection_as_it_is(
    server: EngineServer, admin: Admin
) -> None:
    wanted = {"class": "kept", "vectorizer": "none", "description": "first"}
    await provision(server, admin, collections=[wanted])
    before = await ask(server, admin["api-key"], "GET", "/v1/schema/Kept")

    await provision(server, admin, collections=[{**wanted, "description": "second"}])

    assert await ask(server, admin["api-key"], "GET", "/v1/schema/Kept") == before
    assert (before[0], before[1]["class"]) == (200, "Kept")


async def test_a_bad_collection_is_named_with_the_engines_message(
    server: EngineServer, admin: Admin
) -> None:
    error = await refusal(server, admin, collections=[{"class": "not a name"}])

    assert str(error).startswith("collection 'Not a name': ")
    assert "is not a valid class name" in str(error)
    assert (error.reason, error.retry) == (Reason.BOOTSTRAP_FAILED, False)


@pytest.mark.parametrize("key", ["api-key", "app-api-key"])
async def test_a_key_that_the_server_does_not_know_is_named(
    server: EngineServer, admin: Admin, key: str
) -> None:
    error = await refusal(server, admin | {key: "not-the-key"})

    assert f"the key '{key}'" in str(error)
    assert (error.reason, error.retry) == (Reason.CREDENTIALS_MISMATCH, False)


async def test_a_server_that_does_not_answer_can_be_tried_again(
    server: EngineServer, admin: Admin
) -> None:
    error = await refusal(replace(server, port=free_port()), admin)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)
