"""ClickHouse over its HTTP interface: the database, plan2_app, plan2_ro, grants, bootstrap.

Plain aiohttp, since the statements are few and the operator's image stays small. Users are made
in SQL (the administrator alone comes from a file), with a salted hash instead of the password.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from plan2_operator.engines.access import (
    APP_PASSWORD,
    APP_USER,
    PASSWORD,
    RO_PASSWORD,
    RO_USER,
    USERNAME,
)
from plan2_operator.provision import statements
from plan2_operator.provision.base import (
    Provision,
    bad_bootstrap,
    failed,
    refused_login,
    unavailable,
)

JOURNAL: Final = "plan2_bootstrap"
_AUTHENTICATION_FAILED: Final = "516"

_JOURNAL_COLUMNS: Final = """(
    position UInt32,
    fingerprint String,
    applied_at DateTime64(9) DEFAULT now64(9)
) ENGINE = ReplacingMergeTree(applied_at) ORDER BY position"""


class Refused(Exception):
    """An answer that is not 200; the message is the engine's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class _Login:
    """A user's view of the server."""

    http: aiohttp.ClientSession
    url: str
    username: str
    password: str

    async def run(self, sql: str, database: str = "", **settings: str) -> str:
        """What the server answers to one statement; raises Refused."""
        headers = {"X-ClickHouse-User": self.username, "X-ClickHouse-Key": self.password}
        # Waiting for the end keeps an error from arriving after a 200.
        parameters = {"wait_end_of_query": "1"} | settings
        if database:
            parameters["database"] = database
        async with self.http.post(
            self.url, params=parameters, data=sql.encode(), headers=headers
        ) as answer:
            text = await answer.text(errors="replace")
            if answer.status == 200:
                return text
            code = answer.headers.get("X-ClickHouse-Exception-Code", "")
            raise Refused(code, text or f"HTTP {answer.status}")

    async def is_accepted(self) -> bool:
        """Whether the password is right."""
        try:
            await self.run("SELECT 1")
        except Refused as error:
            if error.code == _AUTHENTICATION_FAILED:
                return False
            raise
        return True


async def provision(request: Provision) -> None:
    """Database, users, grants, bootstrap; raises ProvisionError."""
    timeout = aiohttp.ClientTimeout(total=request.seconds, sock_connect=request.connect_seconds)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            await _provision(request, http)
    except Refused as error:
        raise failed(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise unavailable(error) from error


def identifier(name: str) -> str:
    """The name quoted for SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


async def _provision(request: Provision, http: aiohttp.ClientSession) -> None:
    url = f"http://{request.host}:{request.port}/"
    admin = _Login(http, url, request.secret(USERNAME), request.secret(PASSWORD))
    app = _Login(http, url, APP_USER, request.secret(APP_PASSWORD))
    ro = _Login(http, url, RO_USER, request.secret(RO_PASSWORD))
    if not await admin.is_accepted():
        raise refused_login(repr(admin.username))
    database = identifier(request.database)
    await admin.run(f"CREATE DATABASE IF NOT EXISTS {database}")
    await _user(admin, app)
    await admin.run(f"GRANT ALL ON {database}.* TO {APP_USER}")
    # 2, not 1: no write and no DDL all the same, but a query may set its own limits.
    await _user(admin, ro, "SETTINGS readonly = 2")
    await admin.run(f"GRANT SELECT ON {database}.* TO {RO_USER}")
    await _bootstrap(request, app)


async def _user(admin: _Login, user: _Login, settings: str = "") -> None:
    if await user.is_accepted():
        return
    secret = _identification(user.password)
    await admin.run(f"CREATE USER IF NOT EXISTS {user.username} {secret} {settings}")
    # It was there before, with another password.
    if not await user.is_accepted():
        await admin.run(f"ALTER USER {user.username} {secret} {settings}")


def _identification(password: str) -> str:
    salt = secrets.token_hex(16)
    digest = hashlib.sha256((password + salt).encode()).hexdigest()
    return f"IDENTIFIED WITH sha256_hash BY '{digest}' SALT '{salt}'"


async def _bootstrap(request: Provision, app: _Login) -> None:
    wanted = statements.fingerprints(request.bootstrap.sql)
    if not wanted:
        return
    journal = f"{identifier(request.database)}.{JOURNAL}"
    await app.run(f"CREATE TABLE IF NOT EXISTS {journal} {_JOURNAL_COLUMNS}")
    start = statements.first_pending(wanted, await _applied(app, journal))
    for index in range(start, len(wanted)):
        place = f"bootstrap statement {index + 1} of {len(wanted)}"
        request.begin(place)
        try:
            await app.run(request.bootstrap.sql[index], request.database)
        except Refused as error:
            raise bad_bootstrap(f"{place}: {error}") from error
        row = json.dumps({"position": index, "fingerprint": wanted[index]})
        insert = f"INSERT INTO {journal} (position, fingerprint) FORMAT JSONEachRow {row}"
        # Seen by the next run, whatever this server's default is.
        await app.run(insert, async_insert="0")


async def _applied(app: _Login, journal: str) -> dict[int, str]:
    query = f"SELECT position, fingerprint FROM {journal} FINAL FORMAT JSONEachRow"
    rows: list[dict[str, Any]] = [json.loads(row) for row in (await app.run(query)).splitlines()]
    return {int(row["position"]): row["fingerprint"] for row in rows}
