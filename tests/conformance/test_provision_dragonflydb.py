"""Provisioning the users of Dragonfly's stand-in and of a real Redis: one module, two servers."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError

from fixtures.fix_engines import EngineServer, free_port, make_dragonflydb, make_redis, run
from fixtures.provisioning import made_secret, provision, refusal
from plan2_operator.provision import Reason

Admin = dict[str, str]


@contextmanager
def started(engine: str, admin: Admin) -> Iterator[EngineServer]:
    """A server of the test's own that has read the Secret's aclfile."""
    made = make_dragonflydb() if engine == "dragonflydb" else make_redis()
    aclfile = made.data / "users.acl"
    aclfile.write_text(admin["users.acl"])
    if engine == "dragonflydb":
        kept = [flag for flag in made.command if not flag.startswith("--requirepass")]
        command = (*kept, f"--aclfile={aclfile}")
    else:
        command = (*made.command[: made.command.index("--requirepass")], "--aclfile", str(aclfile))
    with run(replace(made, command=command)) as server:
        yield server


@pytest.fixture(params=["dragonflydb", "redis"], scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def admin(engine: str) -> Admin:
    return made_secret(engine, {})


@pytest.fixture(scope="module")
def server(engine: str, admin: Admin) -> Iterator[EngineServer]:
    with started(engine, admin) as server:
        yield server


@asynccontextmanager
async def client(
    server: EngineServer, user: str, password: str
) -> AsyncIterator["redis.asyncio.Redis"]:
    connection = redis.asyncio.Redis(
        host=server.host,
        port=server.port,
        username=user,
        password=password,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield connection
    finally:
        await connection.aclose()


async def users(server: EngineServer, admin: Admin) -> list[str]:
    async with client(server, "plan2-admin", admin["password"]) as connection:
        return sorted(map(str, await connection.acl_list()))


async def test_users_of_the_aclfile_are_left_as_they_are(
    server: EngineServer, admin: Admin
) -> None:
    before = await users(server, admin)

    await provision(server, admin, enabled=True)

    assert await users(server, admin) == before


async def test_the_application_user_writes_and_is_no_administrator(
    server: EngineServer, admin: Admin
) -> None:
    await provision(server, admin, enabled=True)

    async with client(server, "default", admin["app-password"]) as app:
        await app.set("key", "value")
        assert await app.get("key") == b"value"
        with pytest.raises(NoPermissionError):
            await app.acl_list()


async def test_the_read_only_user_reads_and_does_not_write(
    server: EngineServer, admin: Admin
) -> None:
    await provision(server, admin, enabled=True)

    async with client(server, "plan2-ro", admin["ro-password"]) as ro:
        await ro.get("key")
        with pytest.raises(NoPermissionError):
            await ro.set("key", "value")


async def test_a_changed_password_is_taken_over_with_the_rules_kept(engine: str) -> None:
    admin = made_secret(engine, {})
    with started(engine, admin) as server:
        changed = made_secret(engine, admin | {"app-password": "a-new-password"})

        await provision(server, changed, enabled=True)

        async with client(server, "default", "a-new-password") as app:
            await app.set("key", "value")
            with pytest.raises(NoPermissionError):
                await app.acl_list()
        async with client(server, "default", admin["app-password"]) as app:
            with pytest.raises(AuthenticationError):
                await app.ping()
        settled = await users(server, admin)
        await provision(server, changed, enabled=True)
        assert await users(server, admin) == settled


async def test_a_user_that_is_gone_is_made_again(engine: str) -> None:
    admin = made_secret(engine, {})
    with started(engine, admin) as server:
        async with client(server, "plan2-admin", admin["password"]) as connection:
            await connection.acl_deluser("plan2-ro")

        await provision(server, admin, enabled=True)

        async with client(server, "plan2-ro", admin["ro-password"]) as ro:
            await ro.get("key")
            with pytest.raises(NoPermissionError):
                await ro.set("key", "value")


async def test_a_wrong_administrators_password_is_named(server: EngineServer, admin: Admin) -> None:
    error = await refusal(server, admin | {"password": "not-the-password"}, enabled=True)

    assert "login of 'plan2-admin'" in str(error)
    assert (error.reason, error.retry) == (Reason.CREDENTIALS_MISMATCH, False)


async def test_a_rule_the_server_does_not_know_is_its_message_without_the_password(
    engine: str,
) -> None:
    admin = made_secret(engine, {})
    with started(engine, admin) as server:
        broken = admin["users.acl"].replace("-@admin", "-@nonsense")
        changed = admin | {"app-password": "another-password", "users.acl": broken}

        error = await refusal(server, changed, enabled=True)

    assert "nonsense" in str(error)
    assert error.reason == Reason.PROVISIONING_FAILED


async def test_a_server_that_does_not_answer_can_be_tried_again(
    server: EngineServer, admin: Admin
) -> None:
    error = await refusal(replace(server, port=free_port()), admin, enabled=True)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)
