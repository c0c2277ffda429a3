"""DragonflyDB and the legacy Redis: the live users against the aclfile of the admin Secret.

The server reads its users from the aclfile at start. What is left to do is to see that each of
them can log in, and to bring a user up to date in the running server when the file has changed
since. Only commands that both servers know alike are used.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    RedisError,
    TimeoutError,
)

from plan2_operator.engines import acl
from plan2_operator.engines.access import APP_PASSWORD, PASSWORD, RO_PASSWORD, USERNAME
from plan2_operator.provision.base import Provision, failed, refused_login, unavailable

APP_USER: Final = "default"
_PASSWORDS: Final = {APP_USER: APP_PASSWORD, acl.READ_ONLY: RO_PASSWORD}
_PASSWORD_RULES: Final = (">", "<", "#", "!")


async def provision(request: Provision) -> None:
    """Every user of the aclfile can log in with its password; raises ProvisionError."""
    administrator = request.secret(USERNAME)
    rules = _users(request.secret(acl.KEY))
    with _translated(administrator):
        async with _client(request, administrator, request.secret(PASSWORD)) as server:
            await server.ping()
            for user, key in _PASSWORDS.items():
                password = request.secret(key)
                if user in rules and not await _can_log_in(request, user, password):
                    await _set_user(server, user, password, rules[user])


@asynccontextmanager
async def _client(
    request: Provision, user: str, password: str
) -> AsyncIterator["redis.asyncio.Redis"]:
    client = redis.asyncio.Redis(
        host=request.host,
        port=request.port,
        username=user,
        password=password,
        protocol=2,
        single_connection_client=True,
        socket_timeout=request.seconds,
        socket_connect_timeout=request.seconds,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    finally:
        await client.aclose()


async def _can_log_in(request: Provision, user: str, password: str) -> bool:
    async with _client(request, user, password) as client:
        try:
            await client.ping()
        except NoPermissionError:
            return True  # it is in; it only may not PING
        except AuthenticationError:
            return False
    return True


async def _set_user(
    server: "redis.asyncio.Redis", user: str, password: str, rules: list[str]
) -> None:
    # Dragonfly knows resetpass and >password, not #sha256.
    command = cast(Any, server).execute_command  # redis-py gives it no types
    await command("ACL", "SETUSER", user, "resetpass", f">{password}", *rules)


def _users(aclfile: str) -> Mapping[str, list[str]]:
    """Each user's rules without those about passwords."""
    found = {}
    for line in aclfile.splitlines():
        words = line.split()
        if len(words) > 1 and words[0].lower() == "user":
            found[words[1]] = [rule for rule in words[2:] if not _is_about_password(rule)]
    return found


def _is_about_password(rule: str) -> bool:
    return rule.startswith(_PASSWORD_RULES) or rule.lower() in ("nopass", "resetpass", "reset")


@contextmanager
def _translated(user: str) -> Iterator[None]:
    try:
        yield
    except (AuthenticationError, AuthorizationError) as error:
        raise refused_login(f"{user!r}", str(error)) from error
    except BusyLoadingError as error:
        raise unavailable("it is still loading its data") from error
    except (OSError, ConnectionError, TimeoutError) as error:
        raise unavailable(error) from error
    except RedisError as error:
        raise failed(str(error)) from error
