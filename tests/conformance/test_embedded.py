"""`plan2-sidecar --embedded`: the real engines, as a person at a laptop starts them."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.embedded import embedded_sidecar, launch, listening
from fixtures.fix_sidecar import Connect, SidecarProcess, eventually, free_port, spawn
from plan2_sidecar.embedded.folder import locked

# Fifteen are promised; a machine that reads the engines from a cold disk gets five times that.
LISTENING_SECONDS = 5 * 15.0
OTHERS = ("weaviate", "arangodb", "mongodb", "redis")

Embedded = Callable[..., SidecarProcess]


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A folder that the first test here fills, and the others go on with."""
    # Not pytest's own: its name is long, and the engines outlive nobody anyway.
    path = Path(tempfile.mkdtemp(prefix="plan2-embedded-"))
    yield path
    shutil.rmtree(path)
    path.with_name(f"{path.name}.log").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[SidecarProcess]:
    """One for the tests that leave it as it is; its folder is its log's name without the end."""
    with embedded_sidecar() as sidecar:
        yield sidecar


@pytest.fixture
def embedded(data: Path) -> Iterator[Embedded]:
    """Starts sidecars over the folder; returns when they listen."""
    started: list[SidecarProcess] = []

    def start(folder: Path = data, **environment: str) -> SidecarProcess:
        sidecar = launch(folder, **environment)
        started.append(sidecar)
        listening(sidecar)
        return sidecar

    yield start
    for sidecar in started:
        if sidecar.process.poll() is None:
            sidecar.stop()


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return found


def engines_ended(folder: Path) -> bool:
    """Whether no process that was started over the folder lives."""
    descriptor = os.open(folder / "engines.lock", os.O_RDWR)
    try:
        return locked(descriptor)
    finally:
        os.close(descriptor)


async def test_the_first_start_listens_soon_and_all_three_engines_answer(
    data: Path, connect: Connect
) -> None:
    sidecar = launch(data)
    try:
        seconds = listening(sidecar)
        client = connect(sidecar)
        postgresql = await client.query("SELECT upper('ä') AS up", "postgresql")
        clickhouse = await client.query("SELECT currentDatabase() AS name", "clickhouse")
        store = await client.query(["SET", "k", "v"], "dragonflydb")
        databases = (await client.get("/api/v2/databases")).body["engines"]
        weaviate = await client.query({"collection": "C", "bm25": "x"}, "weaviate")
    finally:
        ended = sidecar.stop()

    assert seconds < LISTENING_SECONDS
    assert postgresql.body["data"] == [{"up": "Ä"}]
    assert clickhouse.body["data"] == [{"name": "aitrading_analytics"}]
    assert store.body["data"] == "OK"
    assert [name for name in OTHERS if databases[name]["configured"]] == []
    assert (weaviate.status, weaviate.body["code"]) == (422, "engine_not_configured")
    assert ended == 0
    assert engines_ended(data)


async def test_a_restart_keeps_the_data_and_the_addresses(
    data: Path, embedded: Embedded, connect: Connect
) -> None:
    first = embedded()
    client = connect(first)
    await client.query("CREATE TABLE kept (n int)", "postgresql")
    await client.query("INSERT INTO kept VALUES (7)", "postgresql")
    await client.query("CREATE TABLE kept (n UInt8) ENGINE MergeTree ORDER BY n", "clickhouse")
    await client.query("INSERT INTO kept VALUES (8)", "clickhouse")
    await client.query(["SET", "kept", "9"], "dragonflydb")
    ports = state(data)["ports"]
    first.stop()

    client = connect(embedded())

    assert (await client.query("SELECT n FROM kept", "postgresql")).body["data"] == [{"n": 7}]
    assert (await client.query("SELECT n FROM kept", "clickhouse")).body["data"] == [{"n": 8}]
    assert (await client.query(["GET", "kept"], "dragonflydb")).body["data"] == "9"
    assert state(data)["ports"] == ports


async def test_a_sidecar_that_is_killed_starts_again_with_its_data(
    data: Path, embedded: Embedded, connect: Connect
) -> None:
    first = embedded()
    client = connect(first)
    await client.query("CREATE TABLE survives AS SELECT 1 AS n", "postgresql")
    await client.query(["SET", "survives", "2"], "dragonflydb")
    first.process.kill()
    first.process.wait()

    client = connect(embedded())

    assert (await client.query("SELECT n FROM survives", "postgresql")).body["data"] == [{"n": 1}]
    assert (await client.query(["GET", "survives"], "dragonflydb")).body["data"] == "2"


async def test_the_kernel_ends_the_engines_of_a_killed_sidecar(
    data: Path, embedded: Embedded
) -> None:
    sidecar = embedded()
    sidecar.process.kill()
    sidecar.process.wait()

    async def ended() -> bool:
        return engines_ended(data)

    await eventually(ended, seconds=50)


def test_a_folder_in_use_is_refused_by_name(shared: SidecarProcess) -> None:
    data = shared.log.with_suffix("")

    second = spawn(data / "second.log", {}, ("--embedded", "--data", str(data)))

    assert second.process.wait(30) == 1
    said = second.log.read_text()
    assert f"{data} is in use by another plan2-sidecar --embedded" in said
    assert f"(process {shared.process.pid})" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["postgresql", "clickhouse", "valkey"])
async def test_an_engine_that_dies_is_started_again(
    data: Path, embedded: Embedded, connect: Connect, name: str
) -> None:
    client = connect(embedded())
    target, query = {
        "postgresql": ("postgresql", "SELECT 1 AS one"),
        "clickhouse": ("clickhouse", "SELECT 1 AS one"),
        "valkey": ("dragonflydb", ["PING"]),
    }[name]
    await client.query(query, target)
    pid = state(data)["children"][name]["pid"]

    os.kill(pid, signal.SIGKILL)

    async def another_answers() -> bool:
        answer = await client.query(query, target)
        return answer.status == 200 and state(data)["children"][name]["pid"] != pid

    await eventually(another_answers, seconds=60, every=0.5)


async def test_a_slow_statement_of_clickhouse_leaves_room_for_others(
    shared: SidecarProcess, connect: Connect
) -> None:
    client = connect(shared)
    slow = asyncio.create_task(client.query("SELECT sleep(3)", "clickhouse"))
    await asyncio.sleep(0.5)

    quick = await client.query("SELECT 1 AS one", "clickhouse")

    assert quick.body["data"] == [{"one": 1}]
    assert not slow.done()
    assert (await slow).status == 200


def test_nobody_else_reads_the_passwords(shared: SidecarProcess) -> None:
    data = shared.log.with_suffix("")
    passwords = state(data)["passwords"]
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]

    assert len(set(passwords.values())) == 3
    assert (data / "state.json").stat().st_mode & 0o777 == 0o600
    assert any(b"clickhouse_server" in command for command in commands)
    assert not [
        name
        for name, password in passwords.items()
        if any(password.encode() in command for command in commands)
    ]


def test_the_engines_ask_for_their_passwords(shared: SidecarProcess) -> None:
    ports = state(shared.log.with_suffix(""))["ports"]
    with socket.create_connection(("127.0.0.1", ports["valkey"]), 5) as connection:
        connection.sendall(b"GET k\r\n")
        store = connection.recv(64)
    with socket.create_connection(("127.0.0.1", ports["clickhouse"]), 5) as connection:
        connection.sendall(b"GET /?query=SELECT%201 HTTP/1.0\r\n\r\n")
        clickhouse = connection.recv(64)

    assert store.startswith(b"-NOAUTH")
    assert clickhouse.startswith(b"HTTP/1.0 403")


async def test_the_api_asks_for_its_token_where_there_is_one(
    embedded: Embedded, connect: Connect
) -> None:
    sidecar = embedded(PLAN2_API_TOKEN="open-sesame")

    without = await connect(sidecar).query("SELECT 1", "postgresql")
    given = await connect(sidecar, Authorization="Bearer open-sesame").query(
        "SELECT 1", "postgresql"
    )

    assert (without.status, given.status) == (401, 200)


async def test_an_engine_elsewhere_may_be_added_by_its_variables(
    embedded: Embedded, connect: Connect
) -> None:
    sidecar = embedded(WEAVIATE_HOST="127.0.0.1", WEAVIATE_PORT=str(free_port()))

    databases = (await connect(sidecar).get("/api/v2/databases")).body["engines"]

    assert databases["weaviate"]["configured"]
    assert databases["postgresql"]["configured"]


def test_a_cluster_that_was_half_made_is_made_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("half")
    half = folder / "postgresql" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    sidecar = launch(folder)
    try:
        listening(sidecar)
    finally:
        sidecar.stop()

    assert (folder / "postgresql" / "data" / "postgresql.conf").exists()
    assert not half.exists()


def test_a_stop_while_the_engines_start_is_a_clean_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    sidecar = launch(folder)
    while not (folder / "state.json").exists():
        assert sidecar.process.poll() is None, sidecar.log.read_text()
        time.sleep(0.01)

    code = sidecar.stop()

    assert code == 0, sidecar.log.read_text()
    assert engines_ended(folder)


def test_a_data_folder_alone_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "plan2_sidecar", "--data", "/nowhere"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "--data goes with --embedded" in done.stderr
