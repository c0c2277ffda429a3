"""ArangoDB: the database, plan2_app with rw and plan2_ro with ro on it, the collections.

python-arango blocks, so that the whole runs in a thread; each of its requests has the deadline
as its own time-out, since a thread cannot be ended from outside. The image hides a failed first
setting of root's password: the login is checked before all else.
"""

import asyncio
import time
from typing import Any, Final

from arango.client import ArangoClient
from arango.exceptions import ArangoClientError, ArangoServerError
from arango.http import DefaultHTTPClient
from requests.exceptions import RequestException

from plan2_operator.engines.access import (
    APP_PASSWORD,
    APP_USER,
    PASSWORD,
    RO_PASSWORD,
    RO_USER,
    USERNAME,
)
from plan2_operator.errors import ProvisionError
from plan2_operator.provision.base import (
    Provision,
    bad_bootstrap,
    failed,
    refused_login,
    unavailable,
)

_UNAUTHORIZED: Final = 401
_UNAVAILABLE: Final = 503
_DUPLICATE_NAME: Final = 1207
_EDGE: Final = "edge"


async def provision(request: Provision) -> None:
    """Database, users, permissions, collections; raises ProvisionError."""
    await asyncio.to_thread(_Run(request).provision)


class _Run:
    """One provisioning from a thread: it stops by itself at the deadline."""

    def __init__(self, request: Provision) -> None:
        self._request = request
        self._until = time.monotonic() + request.seconds
        self._client = ArangoClient(
            hosts=f"http://{request.host}:{request.port}",
            http_client=DefaultHTTPClient(request_timeout=request.seconds, retry_attempts=0),
        )

    def provision(self) -> None:
        """Raises ProvisionError."""
        try:
            self._provision()
        except ArangoServerError as error:
            if error.http_code == _UNAVAILABLE:
                raise unavailable(str(error)) from error
            raise failed(str(error)) from error
        except (ArangoClientError, RequestException, OSError) as error:
            raise unavailable(type(error).__name__) from error
        finally:
            self._client.close()

    def _provision(self) -> None:
        request = self._request
        username = request.secret(USERNAME)
        system = self._login("_system", username, request.secret(PASSWORD))
        if not self._is_accepted(system):
            raise refused_login(f"{username!r}")
        if not system.has_database(request.database):
            system.create_database(request.database)
        self._user(system, APP_USER, request.secret(APP_PASSWORD), "rw")
        self._user(system, RO_USER, request.secret(RO_PASSWORD), "ro")
        self._collections(username)

    def _login(self, database: str, username: str, password: str) -> Any:
        if time.monotonic() > self._until:
            raise unavailable(f"provisioning took longer than {self._request.seconds:g} s")
        return self._client.db(database, username=username, password=password)

    def _is_accepted(self, database: Any) -> bool:
        try:
            database.version()
        except ArangoServerError as error:
            if error.http_code == _UNAUTHORIZED:
                return False
            raise
        return True

    def _user(self, system: Any, name: str, password: str, right: str) -> None:
        database = self._request.database
        if not system.has_user(name):
            system.create_user(name, password=password, active=True)
        if system.permission(name, database) != right:
            system.update_permission(name, right, database)
        # A right on the database gives none on its collections by itself.
        if system.permission(name, database, "*") != right:
            system.update_permission(name, right, database, "*")
        if not self._is_accepted(self._login(database, name, password)):
            system.update_user(name, password=password, active=True)

    def _collections(self, username: str) -> None:
        request = self._request
        if not request.bootstrap.collections:
            return
        database = self._login(request.database, username, request.secret(PASSWORD))
        existing = {found["name"]: found["type"] for found in database.collections()}
        for wanted in request.bootstrap.collections:
            if wanted.name not in existing:
                self._create(database, wanted.name, wanted.type)
            elif existing[wanted.name] != wanted.type:
                kind = existing[wanted.name]
                message = f"collection {wanted.name!r} is there, of type {kind}, not {wanted.type}"
                raise bad_bootstrap(message)

    def _create(self, database: Any, name: str, kind: str) -> None:
        try:
            database.create_collection(name, edge=kind == _EDGE)
        except ArangoServerError as error:
            if error.error_code != _DUPLICATE_NAME:
                raise self._refused(name, error) from error

    def _refused(self, name: str, error: ArangoServerError) -> ProvisionError:
        message = f"collection {name!r}: {error}"
        return bad_bootstrap(message) if error.http_code == 400 else failed(message)
