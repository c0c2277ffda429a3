"""MongoDB: the one-member replica set, then plan2_app and plan2_ro in the application's database.

The connection is direct: the operator speaks to the one pod, whatever name the replica set knows
it by, and before there is a replica set at all.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from plan2_operator.engines.access import (
    APP_PASSWORD,
    APP_USER,
    PASSWORD,
    RO_PASSWORD,
    RO_USER,
    USERNAME,
)
from plan2_operator.engines.mongodb import REPLICA_SET
from plan2_operator.provision.base import Provision, failed, refused_login, unavailable

_POLL_SECONDS: Final = 0.2
_AUTHENTICATION_FAILED: Final = 18
_ALREADY_INITIALIZED: Final = 23
_NOT_YET_INITIALIZED: Final = 94
_USER_EXISTS: Final = 51003
_NO_USER_HINT: Final = (
    "either the password was changed in the database, or the first start was cut short before "
    "it made the user (then there is no user at all: empty the volume, or create the user from "
    "within the pod, where MongoDB allows it while there is none)"
)

Client = AsyncMongoClient[dict[str, Any]]


async def provision(request: Provision) -> None:
    """Replica set, primary, users; raises ProvisionError."""
    username = request.secret(USERNAME)
    with _translated(username):
        async with _client(request, username, request.secret(PASSWORD), "admin") as client:
            await _initiate(request, client)
            request.begin("the replica set electing its primary")
            await _primary(client)
            request.begin("users")
            database = request.database
            await _user(request, client, APP_USER, APP_PASSWORD, ("readWrite", database))
            await _user(request, client, RO_USER, RO_PASSWORD, ("read", database))


@asynccontextmanager
async def _client(
    request: Provision, username: str, password: str, source: str
) -> AsyncIterator[Client]:
    milliseconds = int(request.seconds * 1000)
    client: Client = AsyncMongoClient(
        host=request.host,
        port=request.port,
        username=username,
        password=password,
        authSource=source,
        directConnection=True,
        retryReads=False,
        retryWrites=False,
        connectTimeoutMS=milliseconds,
        serverSelectionTimeoutMS=milliseconds,
        socketTimeoutMS=milliseconds,
        appname="plan2-operator",
    )
    try:
        yield client
    finally:
        await client.close()


async def _initiate(request: Provision, client: Client) -> None:
    try:
        await client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
    else:
        return
    member = {"_id": 0, "host": f"{request.host}:{request.port}"}
    try:
        await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise


async def _primary(client: Client) -> None:
    """Return once the member has elected itself; the caller's deadline bounds the wait."""
    while True:
        if (await client.admin.command("hello")).get("isWritablePrimary"):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _user(
    request: Provision, client: Client, name: str, key: str, role: tuple[str, str]
) -> None:
    database, password = client[request.database], request.secret(key)
    roles = [{"role": role[0], "db": role[1]}]
    found = (await database.command("usersInfo", name)).get("users") or []
    if not found:
        await _create_user(database, name, password, roles)
    elif not _has_roles(found[0], roles):
        await database.command("updateUser", name, roles=roles)
    if not await _can_log_in(request, name, password):
        await database.command("updateUser", name, pwd=password)


async def _create_user(
    database: Any, name: str, password: str, roles: list[dict[str, str]]
) -> None:
    try:
        await database.command("createUser", name, pwd=password, roles=roles)
    except OperationFailure as error:
        if error.code != _USER_EXISTS:
            raise


def _has_roles(user: Mapping[str, Any], roles: list[dict[str, str]]) -> bool:
    return [{"role": one["role"], "db": one["db"]} for one in user.get("roles", ())] == roles


async def _can_log_in(request: Provision, name: str, password: str) -> bool:
    async with _client(request, name, password, request.database) as client:
        try:
            await client[request.database].command("ping")
        except OperationFailure as error:
            if error.code == _AUTHENTICATION_FAILED:
                return False
            raise
    return True


@contextmanager
def _translated(username: str) -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code == _AUTHENTICATION_FAILED:
            raise refused_login(f"{username!r}", _NO_USER_HINT) from error
        raise failed(f"{error.details.get('errmsg') if error.details else error}") from error
    except (ConnectionFailure, OSError) as error:
        raise unavailable(type(error).__name__) from error
    except PyMongoError as error:
        raise failed(str(error)) from error
