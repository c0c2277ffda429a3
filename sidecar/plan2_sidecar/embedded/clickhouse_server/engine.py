"""The embedded ClickHouse engine (chdb): a few connections, a statement at a time on each.

A connection is a session. A request's database and settings are put in before its statement and
taken out after it, as if each request had a session of its own.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from chdb.state.sqlitelike import Connection, connect

from plan2_sidecar.embedded.clickhouse_server.failure import Failure, from_engine

# A slow statement leaves room for others; each more costs memory for what it runs.
CONNECTIONS = 4

_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SET_NAMES = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=")


@dataclass(frozen=True)
class Answer:
    """What came back; rows and bytes are the engine's own counts, seconds its elapsed time."""

    body: bytes
    rows_read: int
    bytes_read: int
    rows_written: int
    seconds: float


class Engine:
    """Open once per process: chdb allows one path."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("HOME", str(path))
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="chdb")
        self._connections: SimpleQueue[Connection] = SimpleQueue()
        for _ in range(CONNECTIONS):
            self._connections.put(connect(str(path)))
        self.version = self._now("SELECT version()")
        self.timezone = self._now("SELECT timezone()")

    def _now(self, sql: str) -> str:
        answer = self._isolated(sql.encode(), "TabSeparated", "default", {}, {})
        return answer.body.decode().strip()

    def create_database(self, name: str) -> None:
        """Make it unless it is there."""
        self._now(f"CREATE DATABASE IF NOT EXISTS `{name}`")

    async def run(
        self,
        statement: bytes,
        output_format: str,
        database: str,
        settings: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> Answer:
        """One statement; Failure carries the engine's code."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self._isolated, statement, output_format, database, settings, parameters
        )

    def _isolated(
        self,
        statement: bytes,
        output_format: str,
        database: str,
        settings: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> Answer:
        connection = self._connections.get()
        applied: list[str] = []
        try:
            _query(connection, f"USE `{database}`".encode())
            for name, value in settings.items():
                _set(connection, name, value)
                applied.append(name)
            return _query(connection, statement, output_format, parameters)
        finally:
            if statement.lstrip()[:4].upper() == b"SET ":
                applied += _SET_NAMES.findall(statement.decode(errors="replace"))
            for name in applied:
                with contextlib.suppress(Failure):
                    _query(connection, f"SET {name} = DEFAULT".encode())
            self._connections.put(connection)

    def close(self) -> None:
        """Let the statements under way end, and the engine write what it holds."""
        self._threads.shutdown()
        while not self._connections.empty():
            self._connections.get().close()


def _set(connection: Connection, name: str, value: str) -> None:
    if not _SETTING.fullmatch(name):
        raise Failure(115, f"Unknown setting '{name}'", "UNKNOWN_SETTING")
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    _query(connection, f"SET {name} = '{quoted}'".encode())


def _query(
    connection: Connection,
    statement: bytes,
    output_format: str = "Null",
    parameters: Mapping[str, str] | None = None,
) -> Answer:
    # The parameter form takes text alone; data behind an INSERT may be any bytes.
    text: Any = statement.decode() if parameters else statement
    try:
        result: Any = connection.query(text, output_format, params=dict(parameters or {}))
    except Exception as error:
        raise from_engine(error) from error
    return Answer(
        body=bytes(result.bytes() or b""),
        rows_read=result.storage_rows_read(),
        bytes_read=result.storage_bytes_read(),
        rows_written=result.rows_written(),
        seconds=result.elapsed(),
    )
