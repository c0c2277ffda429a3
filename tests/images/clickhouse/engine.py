"""The embedded ClickHouse engine (chdb): one thread, one statement at a time, nothing left behind.

The engine is one session for the whole process. A request's database and settings are put in before
its statement and taken out after it, as if each request had a session of its own.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from chdb import session
from failure import Failure, from_engine

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chdb")
        path.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("HOME", str(path))
        self._session = self._thread.submit(session.Session, str(path)).result()
        self.version = self._now("SELECT version()").body.decode().strip()
        self.timezone = self._now("SELECT timezone()").body.decode().strip()

    def _now(self, sql: str) -> Answer:
        return self._thread.submit(self._query, sql.encode(), "TabSeparated", {}).result()

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
            self._thread, self._isolated, statement, output_format, database, settings, parameters
        )

    def _isolated(
        self,
        statement: bytes,
        output_format: str,
        database: str,
        settings: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> Answer:
        self._query(f"USE `{database}`".encode(), "Null", {})
        applied: list[str] = []
        try:
            for name, value in settings.items():
                self._set(name, value)
                applied.append(name)
            return self._query(statement, output_format, parameters)
        finally:
            head = statement.lstrip()[:4].upper()
            if head == b"SET ":
                applied += _SET_NAMES.findall(statement.decode(errors="replace"))
            for name in applied:
                self._query(f"SET {name} = DEFAULT".encode(), "Null", {}, quiet=True)

    def _set(self, name: str, value: str) -> None:
        if not _SETTING.fullmatch(name):
            raise Failure(115, f"Unknown setting '{name}'", "UNKNOWN_SETTING")
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        self._query(f"SET {name} = '{quoted}'".encode(), "Null", {})

    def _query(
        self,
        statement: bytes,
        output_format: str,
        parameters: Mapping[str, str],
        quiet: bool = False,
    ) -> Answer:
        try:
            # The parameter form takes text alone; data behind an INSERT may be any bytes.
            result = (
                self._session._conn.query(
                    statement.decode(), output_format, params=dict(parameters)
                )
                if parameters
                else self._session._conn.query(statement, output_format)
            )
        except Exception as error:
            if quiet:
                return Answer(b"", 0, 0, 0, 0.0)
            raise from_engine(error) from error
        return Answer(
            body=bytes(result.bytes() or b""),
            rows_read=result.storage_rows_read(),
            bytes_read=result.storage_bytes_read(),
            rows_written=result.rows_written(),
            seconds=result.elapsed(),
        )

    def close(self) -> None:
        """Let the engine write what it holds."""
        self._thread.submit(self._session.close).result()
        self._thread.shutdown()
