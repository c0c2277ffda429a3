"""The ClickHouse facade, driven by the asynchronous client."""

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from fixtures.fix_engines import EngineServer


async def _client(server: EngineServer, user: str = "", password: str = "") -> AsyncClient:
    return await clickhouse_connect.get_async_client(
        host=server.host,
        port=server.port,
        username=user or server.admin_user,
        password=password or server.admin_password,
    )


@pytest.fixture
async def admin(clickhouse: EngineServer) -> AsyncIterator[AsyncClient]:
    client = await _client(clickhouse)
    await client.command("CREATE DATABASE IF NOT EXISTS app")
    yield client
    await client.command("DROP TABLE IF EXISTS app.t")
    await client.command("DROP USER IF EXISTS plan2_app, plan2_ro")
    await client.command("DROP ROLE IF EXISTS plan2_rw")
    await client.close()


async def test_the_client_creates_inserts_and_reads_with_parameters(admin: AsyncClient) -> None:
    await admin.command("CREATE TABLE app.t (n UInt32, s String) ENGINE MergeTree ORDER BY n")
    summary = await admin.insert(
        "t", [[1, "one"], [2, "two\n"]], column_names=["n", "s"], database="app"
    )
    rows = await admin.query("SELECT s FROM app.t WHERE n = {n:UInt32}", parameters={"n": 2})

    assert summary.written_rows == 2
    assert rows.result_rows == [("two\n",)]


async def test_bytes_pass_through_in_the_format_asked_for(admin: AsyncClient) -> None:
    await admin.command("CREATE TABLE app.t (n UInt64) ENGINE MergeTree ORDER BY n")
    await admin.raw_insert("app.t", insert_block=b'{"n":1}\n{"n":2}\n', fmt="JSONEachRow")
    raw = await admin.raw_query(
        "SELECT n FROM app.t ORDER BY n",
        fmt="JSONEachRow",
        settings={"output_format_json_quote_64bit_integers": 0},
    )
    assert raw == b'{"n":1}\n{"n":2}\n'


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        pytest.param("SELEC 1", 62, id="syntax"),
        pytest.param("SELECT 1 FROM app.nothing", 60, id="unknown-table"),
        pytest.param("SELECT 1; DROP DATABASE app", 62, id="second-statement"),
        pytest.param("SELECT nothing", 47, id="unknown-identifier"),
        pytest.param("SELECT 1 SETTINGS nosuch = 1", 115, id="unknown-setting"),
        pytest.param("SELECT {n:UInt8}", 456, id="missing-parameter"),
    ],
)
async def test_errors_carry_the_servers_code(admin: AsyncClient, sql: str, code: int) -> None:
    with pytest.raises(DatabaseError) as refused:
        await admin.command(sql)
    assert refused.value.code == code


async def test_a_setting_lasts_for_its_request_alone(admin: AsyncClient) -> None:
    read = "SELECT toUInt32(value) FROM system.settings WHERE name = 'max_block_size'"
    changed = await admin.command(read, settings={"max_block_size": 7})
    await admin.command("SET max_block_size = 9")
    after = await admin.command(read)

    assert changed == 7
    assert after not in (7, 9)


def test_a_wrong_password_is_516_and_403(clickhouse: EngineServer) -> None:
    request = urllib.request.Request(clickhouse.url, b"SELECT 1")
    request.add_header("X-ClickHouse-User", "admin")
    request.add_header("X-ClickHouse-Key", "wrong")

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)

    with refused.value as answer:
        assert (answer.code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert answer.read().startswith(b"Code: 516. DB::Exception: admin: Authentication failed")


async def test_a_reader_reads_and_does_not_write(
    admin: AsyncClient, clickhouse: EngineServer
) -> None:
    await admin.command("CREATE TABLE app.t (n UInt32) ENGINE MergeTree ORDER BY n")
    await admin.command("CREATE USER plan2_ro IDENTIFIED WITH sha256_password BY 'ro-pw'")
    await admin.command("GRANT SELECT ON app.* TO plan2_ro")
    reader = await _client(clickhouse, "plan2_ro", "ro-pw")

    assert (await reader.query("SELECT count() FROM app.t")).result_rows == [(0,)]
    assert await reader.command("SELECT currentUser()") == "plan2_ro"
    for refused_sql in (
        "INSERT INTO app.t VALUES (1)",
        "DROP TABLE app.t",
        "CREATE USER x",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM other.t",
    ):
        with pytest.raises(DatabaseError) as refused:
            await reader.command(refused_sql)
        assert refused.value.code == 497, refused_sql
    await reader.close()


async def test_a_password_rotates_with_both_valid_in_between(
    admin: AsyncClient, clickhouse: EngineServer
) -> None:
    await admin.command("CREATE ROLE plan2_rw")
    await admin.command("GRANT ALL ON app.* TO plan2_rw")
    await admin.command("CREATE USER plan2_app IDENTIFIED BY 'old' DEFAULT ROLE plan2_rw")
    await admin.command("GRANT plan2_rw TO plan2_app")
    await admin.command("ALTER USER plan2_app ADD IDENTIFIED WITH sha256_password BY 'new'")
    for password in ("old", "new"):
        client = await _client(clickhouse, "plan2_app", password)
        await client.command(
            "CREATE TABLE IF NOT EXISTS app.t (n Int8) ENGINE MergeTree ORDER BY n"
        )
        await client.close()

    await admin.command("ALTER USER plan2_app RESET AUTHENTICATION METHODS TO NEW")

    with pytest.raises(DatabaseError):
        await _client(clickhouse, "plan2_app", "old")
    assert await admin.command("SHOW GRANTS FOR plan2_app") == "GRANT plan2_rw TO plan2_app"
    names = await admin.query("SELECT name FROM system.users ORDER BY name")
    assert ("plan2_app",) in names.result_rows


async def test_a_user_of_the_files_cannot_be_changed_in_sql(admin: AsyncClient) -> None:
    with pytest.raises(DatabaseError) as refused:
        await admin.command("ALTER USER admin IDENTIFIED BY 'x'")
    assert refused.value.code == 495


async def test_data_and_users_survive_a_restart(
    admin: AsyncClient, clickhouse: EngineServer
) -> None:
    await admin.command("CREATE TABLE app.t (n UInt32) ENGINE MergeTree ORDER BY n")
    await admin.command("INSERT INTO app.t VALUES (7)")
    await admin.command("CREATE USER plan2_ro IDENTIFIED BY 'ro-pw'")
    await admin.command("GRANT SELECT ON app.t TO plan2_ro")

    clickhouse.stop()
    clickhouse.start()

    reader = await _client(clickhouse, "plan2_ro", "ro-pw")
    assert (await reader.query("SELECT n FROM app.t")).result_rows == [(7,)]
    await reader.close()


def test_get_is_readonly(clickhouse: EngineServer) -> None:
    query = urllib.parse.urlencode(
        {
            "query": "CREATE DATABASE other",
            "user": clickhouse.admin_user,
            "password": clickhouse.admin_password,
        }
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{clickhouse.url}/?{query}")
    with refused.value as answer:
        assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
