"""`Client`: every call for asyncio, over aiohttp (`plan2-client[async]`).

Connections are kept alive and opened by the first call. Nothing is retried here; the one thing
sent twice is a call that was refused for a token which has rotated since.
"""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from plan2_client import environment, ndjson, queries, resources, wire
from plan2_client.call import Answer, Call
from plan2_client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    SidecarUnreachable,
    StreamCut,
    Unavailable,
    from_answer,
)
from plan2_client.models import StreamEnd

if TYPE_CHECKING:
    import aiohttp

P = ParamSpec("P")
T = TypeVar("T")
READY_EVERY_SECONDS = 0.1


class _Calls:
    """Something that can run calls, or a part of it."""

    def __init__(self, client: "Client") -> None:
        self._client = client


def _call(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[_Calls, P], Coroutine[Any, Any, T]]:
    @functools.wraps(build)
    async def run(self: _Calls, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._client.run(build(*args, **kwargs))

    return run


class Cache(_Calls):
    """Values with an end, shared by every service of the resource."""

    get = _call(resources.cache_get)
    put = _call(resources.cache_put)
    delete = _call(resources.cache_delete)


class Sessions(_Calls):
    """Sessions, durable unless told otherwise."""

    store = _call(resources.session_store)
    get = _call(resources.session_get)
    delete = _call(resources.session_delete)


class Config(_Calls):
    """Values with versions and a history."""

    get = _call(resources.config_get)
    put = _call(resources.config_put)
    delete = _call(resources.config_delete)
    history = _call(resources.config_history)
    cache = _call(resources.config_cache)
    log_change = _call(resources.config_log_change)


class RateLimits(_Calls):
    """One number per client, right across pods."""

    check = _call(resources.rate_limit_check)
    reset = _call(resources.rate_limit_reset)


class Analytics(_Calls):
    """The requests that a service served."""

    log = _call(resources.analytics_log)
    summary = _call(resources.analytics_summary)


class Registry(_Calls):
    """Services and their live instances."""

    register = _call(resources.service_register)
    heartbeat = _call(resources.service_register)
    get = _call(resources.service_get)
    list = _call(resources.service_list)
    remove = _call(resources.service_remove)


class Routes(_Calls):
    """Where a gateway's routes lead."""

    put = _call(resources.routes_put)
    get = _call(resources.routes_get)
    delete = _call(resources.routes_delete)


class Rows:
    """The rows of a stream: `async for`; `end` is known after the last one.

    Leaving early costs the connection and nothing else: use it as a context manager, or `close()`.
    """

    def __init__(self, rows: AsyncGenerator[Any]) -> None:
        self._rows = rows
        self.end: StreamEnd | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        row = await anext(self._rows)
        if isinstance(row, StreamEnd):
            self.end = row
            raise StopAsyncIteration
        return row

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading; the sidecar stops the engine."""
        await self._rows.aclose()


def _stream(build: Callable[P, Call[None]]) -> Callable[Concatenate["Client", P], Rows]:
    @functools.wraps(build)
    def run(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Rows:
        return Rows(self.rows(build(*args, **kwargs)))

    return run


class Client(_Calls):
    """The sidecar of this pod: `async with Client() as client: await client.query(…)`.

    Everything is found in the environment unless given. `timeout_ms` is every call's deadline
    that has none of its own.
    """

    query = _call(queries.query)
    stream = _stream(queries.stream)
    route = _call(queries.route)
    batch = _call(queries.batch)
    cross_db = _call(queries.cross_db)
    cross_db_get = _call(queries.cross_db_get)
    databases = _call(queries.databases)
    health = _call(queries.health)

    def __init__(
        self,
        url: str | None = None,
        *,
        socket: str | None = None,
        token: str | None = None,
        timeout_ms: int = wire.DEFAULT_TIMEOUT_MS,
        max_connections: int = 100,
        parse_float: Callable[[str], Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(self)
        _require_aiohttp()
        self.address = environment.address(url, socket, environ)
        self.timeout_ms = timeout_ms
        self.cache = Cache(self)
        self.sessions = Sessions(self)
        self.config = Config(self)
        self.rate_limit = RateLimits(self)
        self.analytics = Analytics(self)
        self.registry = Registry(self)
        self.routes = Routes(self)
        self._token = environment.Token(token, environ)
        self._loads = wire.decoder(parse_float)
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the next call would open new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ready(self, timeout: float = 30.0) -> None:
        """Wait until the sidecar serves; raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return await self.run(queries.is_ready())
                except (SidecarUnreachable, ConnectionLost, Unavailable, DeadlineExceeded):
                    await asyncio.sleep(READY_EVERY_SECONDS)

    async def run(self, call: Call[T]) -> T:
        """Any call; raises Plan2Error."""
        async with self._exchange(call) as response:
            content = await response.read()
        return call.result(self._answer(response, content))

    async def rows(self, call: Call[None]) -> AsyncGenerator[Any]:
        """The rows of a stream, then its StreamEnd; raises Plan2Error."""
        reader = ndjson.Reader(self._loads)
        async with self._exchange(call, streaming=True) as response:
            if response.status >= 400:
                answer = self._answer(response, await response.read())
                raise from_answer(answer.status, answer.document)
            try:
                async for piece in response.content.iter_any():
                    for row in reader.feed(piece):
                        yield row
            except _broken() as error:
                raise StreamCut(f"the rows ended in the middle: {error}") from error
        for row in reader.feed(b"\n"):
            yield row
        yield reader.finish()

    @contextlib.asynccontextmanager
    async def _exchange(
        self, call: Call[Any], *, streaming: bool = False
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        """The response to a call, its body still to be read."""
        import aiohttp

        timeout_ms = wire.timeout_ms(call, self.timeout_ms)
        body = None if call.body is None else wire.encode(call.body)
        token = self._token.current
        seconds = timeout_ms / 1000 + wire.GRACE_SECONDS
        # The sidecar ends a stream at its deadline; only its silence has a limit here.
        limit = (
            aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
            if streaming
            else aiohttp.ClientTimeout(total=seconds)
        )

        def send(token: str | None) -> Any:
            return self._opened().request(
                call.method,
                self._url(call.path),
                data=body,
                headers=wire.headers(call, token, timeout_ms),
                timeout=limit,
                allow_redirects=False,
            )

        try:
            async with send(token) as response:
                if response.status != 401 or not self._token.renewed(token):
                    yield response
                    return
            async with send(self._token.current) as response:
                yield response
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {timeout_ms} ms") from error
        except aiohttp.ClientConnectorError as error:
            raise SidecarUnreachable(f"{self.address}: {error}", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            reading = call.method == "GET"
            raise ConnectionLost(f"{self.address}: {error}", retryable=reading) from error

    def _answer(self, response: "aiohttp.ClientResponse", content: bytes) -> Answer:
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            document=wire.document(self._loads, response.status, content),
        )

    def _opened(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            options: Any = {"limit": self._max_connections, "keepalive_timeout": 30}
            path = self.address.socket
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path, **options)
                if path
                else aiohttp.TCPConnector(**options),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _url(self, path: str) -> Any:
        import yarl

        # Encoded once and not again: a key may hold a slash.
        return yarl.URL(f"http://{self.address.authority}{path}", encoded=True)


def _require_aiohttp() -> None:
    """Raises ImportError while there is still someone to read it."""
    try:
        import aiohttp  # noqa: F401  imported here first, so that SyncClient never does
    except ImportError as error:
        raise ImportError(
            "Client needs aiohttp: pip install 'plan2-client[async]'; SyncClient does not"
        ) from error


def _broken() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientPayloadError
