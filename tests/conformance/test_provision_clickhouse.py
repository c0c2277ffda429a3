"""Provisioning ClickHouse: the real engine behind the stand-in's own users and grants."""

from dataclasses import replace

import aiohttp
import pytest

from fixtures.fix_engines import EngineServer, free_port
from fixtures.provisioning import admin_secret, provision, refusal
from plan2_operator.provision import Reason

Admin = dict[str, str]

TABLE = "CREATE TABLE events (id UInt32) ENGINE = MergeTree ORDER BY id"
READONLY, DENIED, WRONG_PASSWORD = "164", "497", "516"


@pytest.fixture
def admin(clickhouse: EngineServer) -> Admin:
    return admin_secret(clickhouse)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """A database name of the test's own, one that needs quoting."""
    return f"of-{abs(hash(request.node.name)):x}"


async def ask(server: EngineServer, user: str, password: str, sql: str, database: str = "") -> str:
    """The answer's text, or `code <n>` for a refusal."""
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
    parameters = {"database": database} if database else {}
    async with (
        aiohttp.ClientSession() as http,
        http.post(server.url, params=parameters, data=sql, headers=headers) as answer,
    ):
        code = answer.headers.get("X-ClickHouse-Exception-Code")
        return f"code {code}" if code else (await answer.text()).strip()


async def as_app(server: EngineServer, admin: Admin, sql: str, database: str = "") -> str:
    return await ask(server, "plan2_app", admin["app-password"], sql, database)


async def as_ro(server: EngineServer, admin: Admin, sql: str, database: str = "") -> str:
    return await ask(server, "plan2_ro", admin["ro-password"], sql, database)


async def as_admin(server: EngineServer, sql: str) -> str:
    return await ask(server, server.admin_user, server.admin_password, sql)


async def test_the_application_user_creates_writes_and_reads(
    clickhouse: EngineServer, admin: Admin, database: str
) -> None:
    await provision(clickhouse, admin, database=database)

    assert await as_app(clickhouse, admin, TABLE, database) == ""
    assert await as_app(clickhouse, admin, "INSERT INTO events VALUES (7)", database) == ""
    assert await as_app(clickhouse, admin, "SELECT id FROM events", database) == "7"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER other",
        "CREATE DATABASE other",
        "GRANT ALL ON *.* TO plan2_app",
        "DROP USER plan2_ro",
        "CREATE TABLE default.t (id UInt32) ENGINE = MergeTree ORDER BY id",
    ],
)
async def test_the_application_user_is_no_administrator(
    clickhouse: EngineServer, admin: Admin, statement: str
) -> None:
    await provision(clickhouse, admin)

    assert await as_app(clickhouse, admin, statement) == f"code {DENIED}"


async def test_the_read_only_user_reads_and_does_not_write(
    clickhouse: EngineServer, admin: Admin, database: str
) -> None:
    await provision(clickhouse, admin, database=database)
    await as_app(clickhouse, admin, TABLE, database)
    await as_app(clickhouse, admin, "INSERT INTO events VALUES (7)", database)

    assert await as_ro(clickhouse, admin, "SELECT id FROM events", database) == "7"
    for statement in ("INSERT INTO events VALUES (8)", "DROP TABLE events"):
        assert await as_ro(clickhouse, admin, statement, database) == f"code {READONLY}"


async def test_a_second_run_changes_no_user_grant_or_table(
    clickhouse: EngineServer, admin: Admin, database: str
) -> None:
    bootstrap = {"sql": [TABLE, "INSERT INTO events VALUES (1)"]}
    await provision(clickhouse, admin, database=database, bootstrap=bootstrap)
    before = await state(clickhouse, admin, database)

    await provision(clickhouse, admin, database=database, bootstrap=bootstrap)

    assert await state(clickhouse, admin, database) == before


async def state(server: EngineServer, admin: Admin, database: str) -> list[str]:
    return [
        await as_admin(server, "SHOW USERS"),
        await as_admin(server, "SHOW GRANTS FOR plan2_app"),
        await as_admin(server, "SHOW GRANTS FOR plan2_ro"),
        await as_app(server, admin, "SELECT * FROM plan2_bootstrap ORDER BY position", database),
        await as_app(server, admin, "SELECT count() FROM events", database),
        (server.data / "data/access.json").read_text(),
    ]


async def test_a_changed_password_is_taken_over(clickhouse: EngineServer, admin: Admin) -> None:
    await provision(clickhouse, admin)
    changed = admin | {"app-password": "it's a 'new' one"}

    await provision(clickhouse, changed)

    assert await as_app(clickhouse, changed, "SELECT 1") == "1"
    assert await as_app(clickhouse, admin, "SELECT 1") == f"code {WRONG_PASSWORD}"


async def test_a_read_only_user_with_a_new_password_is_still_read_only(
    clickhouse: EngineServer, admin: Admin, database: str
) -> None:
    await provision(clickhouse, admin, database=database)
    await as_app(clickhouse, admin, TABLE, database)
    changed = admin | {"ro-password": "another"}

    await provision(clickhouse, changed, database=database)

    answer = await as_ro(clickhouse, changed, "INSERT INTO events VALUES (8)", database)
    assert answer == f"code {READONLY}"


async def test_no_password_stands_in_the_servers_access_storage(
    clickhouse: EngineServer, admin: Admin
) -> None:
    await provision(clickhouse, admin)

    kept = (clickhouse.data / "data/access.json").read_text()
    assert admin["app-password"] not in kept
    assert "sha256_hash" in kept


async def test_bootstrap_runs_once_and_again_from_where_it_changed(
    clickhouse: EngineServer, admin: Admin, database: str
) -> None:
    insert = "INSERT INTO events VALUES (1)"
    for sql in ([TABLE], [TABLE, insert], [TABLE, insert], [TABLE, insert + ", (2)"]):
        await provision(clickhouse, admin, database=database, bootstrap={"sql": sql})

    assert await as_app(clickhouse, admin, "SELECT count() FROM events", database) == "3"


async def test_a_bad_statement_is_named_with_the_engines_message(
    clickhouse: EngineServer, admin: Admin, database: str
) -> None:
    sql = [TABLE, "INSERT INTO nowhere VALUES (1)"]

    error = await refusal(clickhouse, admin, database=database, bootstrap={"sql": sql})

    assert str(error).startswith("bootstrap statement 2 of 2: Code: 60.")
    assert "nowhere" in str(error)
    assert (error.reason, error.retry) == (Reason.BOOTSTRAP_FAILED, False)


async def test_a_wrong_administrators_password_is_named(
    clickhouse: EngineServer, admin: Admin
) -> None:
    error = await refusal(clickhouse, admin | {"password": "not-the-password"})

    assert f"login of '{clickhouse.admin_user}'" in str(error)
    assert (error.reason, error.retry) == (Reason.CREDENTIALS_MISMATCH, False)


async def test_a_server_that_does_not_answer_can_be_tried_again(
    clickhouse: EngineServer, admin: Admin
) -> None:
    error = await refusal(replace(clickhouse, port=free_port()), admin)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)
