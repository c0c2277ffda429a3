"""The PostgreSQL image's own promises: its variables, its roles, its return with the same data."""

import asyncpg
import pytest

from fixtures.fix_engines import EngineServer


async def _connect(server: EngineServer, **changes: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=changes.get("user", server.admin_user),
        password=changes.get("password", server.admin_password),
        database=changes.get("database", "app"),
    )


async def test_the_named_database_exists_and_answers(postgresql: EngineServer) -> None:
    connection = await _connect(postgresql)

    assert await connection.fetchval("SELECT current_database()") == "app"
    await connection.close()


async def test_a_wrong_password_is_refused_even_on_loopback(postgresql: EngineServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _connect(postgresql, password="wrong")


async def test_it_comes_back_on_its_port_with_its_data(postgresql: EngineServer) -> None:
    connection = await _connect(postgresql)
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    await connection.close()

    postgresql.stop()
    with pytest.raises(OSError, match="Connect"):
        await _connect(postgresql)
    postgresql.start()

    connection = await _connect(postgresql)
    assert await connection.fetchval("SELECT n FROM kept") == 7
    await connection.execute("DROP TABLE kept")
    await connection.close()
