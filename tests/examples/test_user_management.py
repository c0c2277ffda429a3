"""examples/05-user-management: an account and its profile, logging in, sessions, leaving."""

from collections.abc import AsyncIterator, Iterator

import pytest

from fixtures.example_programs import Service, bootstrap, serving
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, eventually

NAME = "05-user-management"


@pytest.fixture(scope="module")
def service(with_mongodb: SidecarProcess) -> Iterator[Service]:
    with serving(NAME, "service.py", with_mongodb) as running:
        yield running


@pytest.fixture
async def users(
    service: Service, with_mongodb: SidecarProcess, connect: Connect
) -> AsyncIterator[SidecarClient]:
    sidecar = connect(with_mongodb)
    await bootstrap(NAME, sidecar)
    yield connect(service.url)
    await sidecar.query("DROP TABLE users", "postgresql")


@pytest.fixture
def ada(unique: str) -> dict[str, str]:
    return {"email": f"Ada.{unique}@example.com", "password": "correct horse", "name": "Ada"}


async def log_in(users: SidecarClient, who: dict[str, str]) -> dict[str, str]:
    answer = await users.call("POST", "/sessions", json=who)
    assert answer.status == 201, answer.body
    return {"Authorization": f"Bearer {answer.body['token']}"}


async def test_an_account_comes_with_its_profile(users: SidecarClient, ada: dict[str, str]) -> None:
    signed_up = await users.call("POST", "/users", json=ada)
    session = await log_in(users, ada)
    me = await users.get("/me", headers=session)

    assert signed_up.status == 201, signed_up.body
    assert me.body["email"] == ada["email"].lower()
    assert me.body["profile"]["name"] == "Ada"
    assert "digest" not in str(me.body)


async def test_an_address_has_one_account(users: SidecarClient, ada: dict[str, str]) -> None:
    first = await users.call("POST", "/users", json=ada)
    second = await users.call("POST", "/users", json=ada)

    assert (first.status, second.status) == (201, 409)


async def test_a_profile_changes_member_by_member(
    users: SidecarClient, ada: dict[str, str]
) -> None:
    await users.call("POST", "/users", json=ada)
    session = await log_in(users, ada)

    changed = await users.call("PUT", "/me/profile", json={"theme": "dark"}, headers=session)

    profile = (await users.get("/me", headers=session)).body["profile"]
    assert changed.status == 204
    assert (profile["name"], profile["theme"]) == ("Ada", "dark")


async def test_guessing_a_password_ends_after_five_attempts(
    users: SidecarClient, ada: dict[str, str]
) -> None:
    await users.call("POST", "/users", json=ada)
    wrong = {**ada, "password": "wrong"}

    statuses = [(await users.call("POST", "/sessions", json=wrong)).status for _ in range(7)]
    right = await users.call("POST", "/sessions", json=ada)

    assert statuses == [401] * 5 + [429] * 2
    assert right.status == 429
    assert int(right.headers["Retry-After"]) > 0


async def test_who_logs_out_or_leaves_is_gone(users: SidecarClient, ada: dict[str, str]) -> None:
    await users.call("POST", "/users", json=ada)
    first, second = await log_in(users, ada), await log_in(users, ada)

    await users.call("DELETE", "/sessions", headers=first)
    left = await users.call("DELETE", "/me", headers=second)

    async def unknown() -> bool:
        return (await users.call("POST", "/sessions", json=ada)).status == 401

    assert left.status == 200, left.body
    assert (await users.get("/me", headers=first)).status == 401
    assert (await users.get("/me", headers=second)).status == 401
    await eventually(unknown)


async def test_what_does_not_fit_is_refused(users: SidecarClient) -> None:
    assert (await users.call("POST", "/users", json={"email": "x"})).status == 400
    assert (await users.call("POST", "/users", data=b"{")).status == 400
    assert (await users.get("/me")).status == 401
