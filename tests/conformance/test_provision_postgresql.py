"""Provisioning a real PostgreSQL: roles, database, grants, the schema plan2, bootstrap."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from fixtures.fix_engines import EngineServer, free_port
from fixtures.provisioning import admin_secret, provision, refusal
from plan2_contract import schema
from plan2_operator.provision import Reason

Admin = dict[str, str]


@pytest.fixture
async def database(postgresql: EngineServer, request: pytest.FixtureRequest) -> str:
    """A database name of the test's own, not there yet."""
    return f"of-{abs(hash(request.node.name)):x}"


@pytest.fixture
def admin(postgresql: EngineServer) -> Admin:
    return admin_secret(postgresql)


@asynccontextmanager
async def session(
    server: EngineServer, user: str, password: str, database: str
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=server.host, port=server.port, user=user, password=password, database=database
    )
    try:
        yield connection
    finally:
        await connection.close()


def as_app(server: EngineServer, admin: Admin, database: str):
    return session(server, "plan2_app", admin["app-password"], database)


def as_ro(server: EngineServer, admin: Admin, database: str):
    return session(server, "plan2_ro", admin["ro-password"], database)


def as_admin(server: EngineServer, database: str):
    return session(server, server.admin_user, server.admin_password, database)


async def test_the_application_role_creates_writes_and_reads(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)

    async with as_app(postgresql, admin, database) as app:
        await app.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        await app.execute("INSERT INTO orders VALUES (1, 'one')")
        assert await app.fetchval("SELECT note FROM orders WHERE id = 1") == "one"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "ALTER ROLE plan2_ro PASSWORD 'x'",
        "CREATE TABLE plan2.mine (id int)",
        "DELETE FROM plan2.schema_version",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "ALTER SYSTEM SET max_connections = 5",
    ],
)
async def test_the_application_role_is_no_administrator(
    postgresql: EngineServer, admin: Admin, statement: str
) -> None:
    await provision(postgresql, admin, database="app")

    async with as_app(postgresql, admin, "app") as app:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)


async def test_the_read_only_role_reads_tables_made_before_and_after_it(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    async with as_admin(postgresql, "postgres") as server:
        await server.execute(f'CREATE DATABASE "{database}"')
    async with as_admin(postgresql, database) as server:
        await server.execute("CREATE TABLE before (id int); INSERT INTO before VALUES (1)")
    await provision(postgresql, admin, database=database)
    async with as_app(postgresql, admin, database) as app:
        await app.execute("CREATE TABLE after (id serial); INSERT INTO after VALUES (2)")

    async with as_ro(postgresql, admin, database) as ro:
        assert await ro.fetchval("SELECT id FROM before") == 1
        assert await ro.fetchval("SELECT id FROM after") == 2
        for statement in ("INSERT INTO after VALUES (3)", "CREATE TABLE mine (id int)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ro.execute(statement)


async def test_others_cannot_connect_to_the_database(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)
    async with as_admin(postgresql, "postgres") as server:
        await server.execute("DROP ROLE IF EXISTS stranger")
        await server.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with session(postgresql, "stranger", "x", database):
            pass


async def test_a_second_run_writes_nothing(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    sql = ["CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)"]
    await provision(postgresql, admin, database=database, bootstrap={"sql": sql})
    before = await rows_of_the_catalog(postgresql, database)

    await provision(postgresql, admin, database=database, bootstrap={"sql": sql})

    assert await rows_of_the_catalog(postgresql, database) == before


async def rows_of_the_catalog(server: EngineServer, database: str) -> list[tuple[str, str]]:
    """Every row that provisioning could rewrite, with its version: xmin changes at each write."""
    tables = (
        "pg_authid",
        "pg_database",
        "pg_namespace",
        "pg_default_acl",
        "pg_class",
        "plan2.schema_version",
        "plan2.bootstrap",
        "t",
    )
    found = []
    async with as_admin(server, database) as connection:
        for table in tables:
            query = f"SELECT xmin::text || ctid::text AS version FROM {table} ORDER BY 1"
            found += [(table, row["version"]) for row in await connection.fetch(query)]
    return found


async def test_a_changed_password_is_taken_over(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)
    changed = admin | {"app-password": "pass'wörd ½"}

    await provision(postgresql, changed, database=database)

    async with as_app(postgresql, changed, database) as app:
        assert await app.fetchval("SELECT 1") == 1
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with as_app(postgresql, admin, database):
            pass


async def test_rights_taken_or_given_by_hand_are_put_right(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)
    async with as_app(postgresql, admin, database) as app:
        await app.execute("CREATE TABLE t (id int)")
    async with as_admin(postgresql, database) as server:
        await server.execute("ALTER ROLE plan2_app SUPERUSER")
        await server.execute("REVOKE SELECT ON t FROM plan2_ro")
        await server.execute("ALTER SCHEMA public OWNER TO postgres")

    await provision(postgresql, admin, database=database)

    async with as_ro(postgresql, admin, database) as ro:
        assert await ro.fetch("SELECT * FROM t") == []
    async with as_app(postgresql, admin, database) as app:
        await app.execute("CREATE TABLE another (id int)")
        assert not await app.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'plan2_app'")


async def test_bootstrap_runs_once_as_the_application(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    sql = ["CREATE TABLE t (by text); INSERT INTO t VALUES (current_user)"]

    await provision(postgresql, admin, database=database, bootstrap={"sql": sql})
    await provision(postgresql, admin, database=database, bootstrap={"sql": sql})

    async with as_app(postgresql, admin, database) as app:
        assert [row["by"] for row in await app.fetch("SELECT by FROM t")] == ["plan2_app"]


async def test_appended_statements_run_alone_and_a_change_runs_all_after_it(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    first, second = "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)"

    await provision(postgresql, admin, database=database, bootstrap={"sql": [first]})
    await provision(postgresql, admin, database=database, bootstrap={"sql": [first, second]})
    changed = "CREATE TABLE IF NOT EXISTS t (id int)"
    await provision(postgresql, admin, database=database, bootstrap={"sql": [changed, second]})

    async with as_app(postgresql, admin, database) as app:
        assert await app.fetchval("SELECT count(*) FROM t") == 2


async def test_a_bad_statement_is_named_with_the_engines_message_and_leaves_no_half(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    good = "CREATE TABLE t (id int)"
    bad = "INSERT INTO t VALUES (1); INSERT INTO nowhere VALUES (1)"

    error = await refusal(
        postgresql, admin, database=database, bootstrap={"sql": [good, bad, "SELECT 1"]}
    )

    assert str(error) == 'bootstrap statement 2 of 3: relation "nowhere" does not exist'
    assert (error.reason, error.retry) == (Reason.BOOTSTRAP_FAILED, False)
    mended = [good, "INSERT INTO t VALUES (2)", "SELECT 1"]
    await provision(postgresql, admin, database=database, bootstrap={"sql": mended})
    async with as_app(postgresql, admin, database) as app:
        assert await app.fetchval("SELECT sum(id) FROM t") == 2


async def test_the_application_cannot_bend_the_administrators_statements(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)
    async with as_app(postgresql, admin, database) as app:
        await app.execute(
            "CREATE FUNCTION has_database_privilege(text, name, text) RETURNS boolean "
            "LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE plan2_app SUPERUSER; RETURN true; END $$"
        )

    await provision(postgresql, admin, database=database)

    async with as_app(postgresql, admin, database) as app:
        assert not await app.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'plan2_app'")


async def test_the_schema_has_the_newest_version(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)

    async with as_admin(postgresql, database) as server:
        rows = await server.fetch("SELECT version FROM plan2.schema_version ORDER BY 1")
    assert [row["version"] for row in rows] == list(range(1, schema.NEWEST + 1))


async def test_a_newer_operators_schema_is_left_alone(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    await provision(postgresql, admin, database=database)
    async with as_admin(postgresql, database) as server:
        await server.execute("INSERT INTO plan2.schema_version VALUES (999)")

    await provision(postgresql, admin, database=database)

    async with as_admin(postgresql, database) as server:
        assert await server.fetchval("SELECT max(version) FROM plan2.schema_version") == 999


async def test_no_password_reaches_the_servers_log(postgresql: EngineServer, admin: Admin) -> None:
    async with as_admin(postgresql, "postgres") as server:
        await server.execute("ALTER SYSTEM SET log_statement = 'all'")
        await server.execute("SELECT pg_reload_conf()")
    try:
        await provision(postgresql, admin, database="app")
    finally:
        async with as_admin(postgresql, "postgres") as server:
            await server.execute("ALTER SYSTEM RESET log_statement")
            await server.execute("SELECT pg_reload_conf()")

    log = postgresql.log.read_text()
    assert "SCRAM-SHA-256$" in log
    assert admin["app-password"] not in log
    assert admin["ro-password"] not in log


async def test_a_wrong_administrators_password_is_named(
    postgresql: EngineServer, admin: Admin
) -> None:
    error = await refusal(postgresql, admin | {"password": "not-the-password"}, database="app")

    assert "login of 'postgres'" in str(error)
    assert (error.reason, error.retry) == (Reason.CREDENTIALS_MISMATCH, False)


async def test_a_database_that_does_not_answer_can_be_tried_again(
    postgresql: EngineServer, admin: Admin
) -> None:
    error = await refusal(replace(postgresql, port=free_port()), admin)

    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)


async def test_the_whole_is_held_to_its_deadline(
    postgresql: EngineServer, admin: Admin, database: str
) -> None:
    sql = ["SELECT pg_sleep(30)"]

    error = await refusal(postgresql, admin, seconds=1.0, database=database, bootstrap={"sql": sql})

    assert str(error).endswith("longer than 1 s, it was at: bootstrap statement 1 of 1")
    assert (error.reason, error.retry) == (Reason.ENGINE_UNAVAILABLE, True)
