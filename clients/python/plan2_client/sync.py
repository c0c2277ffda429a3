"""`SyncClient`: every call for threads, on the standard library alone."""

import contextlib
import functools
import http.client
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from plan2_client import environment, ndjson, queries, resources, wire
from plan2_client.call import Answer, Call
from plan2_client.connections import Connection, Pool
from plan2_client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    SidecarUnreachable,
    StreamCut,
    Unavailable,
    from_answer,
)
from plan2_client.models import StreamEnd

P = ParamSpec("P")
T = TypeVar("T")
READY_EVERY_SECONDS = 0.1
PIECE_BYTES = 65536


class _Calls:
    """Something that can run calls, or a part of it."""

    def __init__(self, client: "SyncClient") -> None:
        self._client = client


def _call(build: Callable[P, Call[T]]) -> Callable[Concatenate[_Calls, P], T]:
    @functools.wraps(build)
    def run(self: _Calls, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client.run(build(*args, **kwargs))

    return run


class SyncCache(_Calls):
    """Values with an end, shared by every service of the resource."""

    get = _call(resources.cache_get)
    put = _call(resources.cache_put)
    delete = _call(resources.cache_delete)


class SyncSessions(_Calls):
    """Sessions, durable unless told otherwise."""

    store = _call(resources.session_store)
    get = _call(resources.session_get)
    delete = _call(resources.session_delete)


class SyncConfig(_Calls):
    """Values with versions and a history."""

    get = _call(resources.config_get)
    put = _call(resources.config_put)
    delete = _call(resources.config_delete)
    history = _call(resources.config_history)
    cache = _call(resources.config_cache)
    log_change = _call(resources.config_log_change)


class SyncRateLimits(_Calls):
    """One number per client, right across pods."""

    check = _call(resources.rate_limit_check)
    reset = _call(resources.rate_limit_reset)


class SyncAnalytics(_Calls):
    """The requests that a service served."""

    log = _call(resources.analytics_log)
    summary = _call(resources.analytics_summary)


class SyncRegistry(_Calls):
    """Services and their live instances."""

    register = _call(resources.service_register)
    heartbeat = _call(resources.service_register)
    get = _call(resources.service_get)
    list = _call(resources.service_list)
    remove = _call(resources.service_remove)


class SyncRoutes(_Calls):
    """Where a gateway's routes lead."""

    put = _call(resources.routes_put)
    get = _call(resources.routes_get)
    delete = _call(resources.routes_delete)


class SyncRows:
    """The rows of a stream: iterate; `end` is known after the last one.

    Leaving early costs the connection and nothing else: use it as a context manager, or `close()`.
    """

    def __init__(self, rows: Generator[Any]) -> None:
        self._rows = rows
        self.end: StreamEnd | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        row = next(self._rows)
        if isinstance(row, StreamEnd):
            self.end = row
            raise StopIteration
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; the sidecar stops the engine."""
        self._rows.close()


def _stream(build: Callable[P, Call[None]]) -> Callable[Concatenate["SyncClient", P], SyncRows]:
    @functools.wraps(build)
    def run(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> SyncRows:
        return SyncRows(self.rows(build(*args, **kwargs)))

    return run


class SyncClient(_Calls):
    """The sidecar of this pod: `with SyncClient() as client: client.query(…)`.

    Safe to share between threads, and in a worker that forked. Parameters as for `Client`;
    `max_idle` connections are kept open.
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
        max_idle: int = 20,
        parse_float: Callable[[str], Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(self)
        self.address = environment.address(url, socket, environ)
        self.timeout_ms = timeout_ms
        self.cache = SyncCache(self)
        self.sessions = SyncSessions(self)
        self.config = SyncConfig(self)
        self.rate_limit = SyncRateLimits(self)
        self.analytics = SyncAnalytics(self)
        self.registry = SyncRegistry(self)
        self.routes = SyncRoutes(self)
        self._token = environment.Token(token, environ)
        self._loads = wire.decoder(parse_float)
        self._pool = Pool(self.address, max_idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call would open new ones."""
        self._pool.close()

    def ready(self, timeout: float = 30.0) -> None:
        """Wait until the sidecar serves; raises TimeoutError after `timeout` seconds."""
        until = time.monotonic() + timeout
        while True:
            try:
                return self.run(queries.is_ready())
            except (SidecarUnreachable, ConnectionLost, Unavailable, DeadlineExceeded) as error:
                if time.monotonic() > until:
                    raise TimeoutError(f"not ready within {timeout} s: {error}") from error
                time.sleep(READY_EVERY_SECONDS)

    def run(self, call: Call[T]) -> T:
        """Any call; raises Plan2Error."""
        with self._exchange(call) as (response, connection, until):
            content = b"".join(_pieces(response, connection, until))
        return call.result(self._answer(response, content))

    def rows(self, call: Call[None]) -> Generator[Any]:
        """The rows of a stream, then its StreamEnd; raises Plan2Error."""
        reader = ndjson.Reader(self._loads)
        silence = wire.timeout_ms(call, self.timeout_ms) / 1000 + wire.GRACE_SECONDS
        with self._exchange(call) as (response, connection, until):
            if response.status >= 400:
                content = b"".join(_pieces(response, connection, until))
                raise from_answer(response.status, self._answer(response, content).document)
            try:
                # The sidecar ends a stream at its deadline; only its silence has a limit here.
                for piece in _pieces(response, connection, None, silence):
                    yield from reader.feed(piece)
            except (http.client.HTTPException, ConnectionError) as error:
                raise StreamCut(f"the rows ended in the middle: {error}") from error
        yield from reader.feed(b"\n")
        yield reader.finish()

    @contextlib.contextmanager
    def _exchange(
        self, call: Call[Any]
    ) -> Iterator[tuple[http.client.HTTPResponse, Connection, float]]:
        """The response to a call, its body still to be read."""
        timeout_ms = wire.timeout_ms(call, self.timeout_ms)
        until = time.monotonic() + timeout_ms / 1000 + wire.GRACE_SECONDS
        body = None if call.body is None else wire.encode(call.body)
        token = self._token.current
        connection, response = self._send(call, body, token, timeout_ms, until)
        try:
            if response.status == 401 and self._token.renewed(token):
                connection.close()
                token = self._token.current
                connection, response = self._send(call, body, token, timeout_ms, until)
            yield response, connection, until
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {timeout_ms} ms") from error
        except (http.client.HTTPException, OSError) as error:
            raise _lost(call, self.address, error) from error
        finally:
            # Only a response that was read to its end leaves a connection to use again.
            if response.isclosed() and connection.sock is not None:
                self._pool.give_back(connection)
            else:
                response.close()
                connection.close()

    def _send(
        self, call: Call[Any], body: bytes | None, token: str | None, timeout_ms: int, until: float
    ) -> tuple[Connection, http.client.HTTPResponse]:
        connection = self._pool.take()
        try:
            connection.spend(until)
            if connection.sock is None:
                try:
                    connection.connect()
                except TimeoutError:
                    raise
                except OSError as error:
                    raise SidecarUnreachable(f"{self.address}: {error}", retryable=True) from error
            connection.spend(until)
            headers = {"Host": connection.authority, **wire.headers(call, token, timeout_ms)}
            connection.request(call.method, call.path, body=body, headers=headers)
            return connection, connection.getresponse()
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"no answer within {timeout_ms} ms") from error
            if isinstance(error, http.client.HTTPException | OSError):
                raise _lost(call, self.address, error) from error
            raise

    def _answer(self, response: http.client.HTTPResponse, content: bytes) -> Answer:
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            document=wire.document(self._loads, response.status, content),
        )


def _pieces(
    response: http.client.HTTPResponse,
    connection: Connection,
    until: float | None,
    silence: float = 0.0,
) -> Iterator[bytes]:
    while True:
        connection.spend(time.monotonic() + silence if until is None else until)
        piece = response.read1(PIECE_BYTES)
        if piece:
            yield piece
            continue
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        # Nothing is left, and only this lets go of the connection.
        response.read()
        return


def _lost(call: Call[Any], address: environment.Address, error: Exception) -> ConnectionLost:
    reason = str(error) or type(error).__name__
    return ConnectionLost(f"{address}: {reason}", retryable=call.method == "GET")
