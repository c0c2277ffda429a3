"""The Dragonfly stand-in: its flags, its admin port, and the legacy Redis beside it."""

import asyncio
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from fixtures.fix_engines import EngineServer, free_port

PROGRAM = Path(__file__).parent / "dragonflydb/dragonfly.py"


async def test_the_password_opens_the_main_port_and_a_wrong_one_does_not(
    dragonflydb: EngineServer,
) -> None:
    async with Redis.from_url(dragonflydb.url) as right:
        assert await right.ping()

    async with Redis(port=dragonflydb.port, username="default", password="wrong") as wrong:
        with pytest.raises(AuthenticationError):
            await wrong.ping()


async def test_cl_throttle_counts(dragonflydb: EngineServer) -> None:
    async with Redis.from_url(dragonflydb.url) as client:
        await client.delete("throttled")
        answers = [
            await client.execute_command("CL.THROTTLE", "throttled", 2, 10, 60) for _ in "abcd"
        ]

    assert [answer[0] for answer in answers] == [0, 0, 0, 1]
    assert [answer[2] for answer in answers] == [2, 1, 0, 0]


async def test_the_admin_port_needs_no_password(dragonflydb: EngineServer) -> None:
    async with Redis(port=dragonflydb.ports["admin"]) as admin:
        assert await admin.ping()
        assert (await admin.info("persistence"))["loading"] == 0


def test_the_admin_port_speaks_http_too(dragonflydb: EngineServer) -> None:
    root = f"http://127.0.0.1:{dragonflydb.ports['admin']}"

    with urllib.request.urlopen(f"{root}/healthz") as health:
        assert (health.status, health.read()) == (200, b"OK")
    with urllib.request.urlopen(f"{root}/metrics") as metrics:
        assert b"dragonfly_memory_max_bytes 268435456" in metrics.read()
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"{root}/nothing")
    refused.value.close()


async def test_a_snapshot_brings_the_data_back(dragonflydb: EngineServer) -> None:
    async with Redis.from_url(dragonflydb.url) as client:
        await client.set("kept", "yes")

    dragonflydb.stop()
    dragonflydb.start()

    async with Redis.from_url(dragonflydb.url) as client:
        assert await client.get("kept") == b"yes"


@pytest.mark.parametrize(
    ("flags", "variables", "message"),
    [
        pytest.param([], {"DFLY_SERVICE_HOST": "10.0.0.1"}, "DFLY_SERVICE_HOST", id="service-link"),
        pytest.param(["--nosuch=1"], {}, "nosuch", id="unknown-flag"),
        pytest.param(["--proactor_threads=2", "--maxmemory=400mb"], {}, "512.00MiB", id="memory"),
    ],
)
def test_it_refuses_to_start_as_the_real_one_does(
    flags: list[str], variables: dict[str, str], message: str
) -> None:
    command = [sys.executable, str(PROGRAM), "dragonfly", *flags]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=20)

    assert ended.returncode == 1
    assert message in ended.stderr


async def test_the_operators_aclfile_is_understood(tmp_path: Path) -> None:
    acl = tmp_path / "users.acl"
    acl.write_text(
        "USER default ON >app-pw ~* &* +@all -@admin -@dangerous -DFLY +INFO\n"
        "USER plan2-admin ON >admin-pw ~* &* +@ALL $all\n"
        "USER plan2-ro ON >ro-pw ~* +@read +@ft_search -@dangerous\n"
    )
    port = free_port()
    flags = [f"--port={port}", "--bind=127.0.0.1", f"--dir={tmp_path}", f"--aclfile={acl}"]
    flags += ["--dbfilename=", "--maxmemory=256mb", "--proactor_threads=1"]
    process = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), *flags)
    try:
        async with Redis(port=port, username="plan2-ro", password="ro-pw") as reader:
            for _ in range(100):
                try:
                    assert await reader.get("nothing") is None
                    break
                except (ConnectionError, OSError):
                    await asyncio.sleep(0.1)
            with pytest.raises(NoPermissionError):
                await reader.set("k", "v")
        async with Redis(port=port, username="default", password="app-pw") as app:
            assert await app.set("k", "v")
            with pytest.raises(NoPermissionError):
                await app.acl_list()
        async with Redis(port=port, username="plan2-admin", password="admin-pw") as admin:
            acl.write_text(acl.read_text().replace("app-pw", "next-pw"))
            await asyncio.sleep(1.5)
            await admin.acl_load()
        async with Redis(port=port, username="default", password="next-pw") as app:
            assert await app.get("k") == b"v"
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_the_legacy_redis_is_redis_itself(redis_legacy: EngineServer) -> None:
    async with Redis.from_url(redis_legacy.url) as client:
        assert (await client.info("server"))["redis_version"].startswith("7.0.")
