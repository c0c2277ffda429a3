"""What every engine module is, and the few things they all need.

An engine module turns one `Query` into one `Result` in its engine's own protocol, and its
driver's exceptions into the tree of `plan2_sidecar.errors`. It leaves routing, admission,
retries and caching to others. Nothing here imports a driver.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    ParameterMismatch,
    Problem,
)
from plan2_sidecar.query import Query, Result

CONNECT_SECONDS: Final = 2.0
IDLE_SECONDS: Final = 60.0

T = TypeVar("T")
Translate = Callable[[Exception], Problem | None]


# Called once, with the result or with what `execute` would raise.
Told = Callable[[Result | BaseException], None]
Cancel = Callable[[], None]


class Unanswered(Exception):
    """Told in place of an outcome: nothing was done, and it is to be awaited from the start."""


class Shared(Protocol):
    """A connection that many calls share, where an engine has one for some of its queries."""

    def takes(self, query: Query) -> bool:
        """Whether that is where the query is likely to go: it needs no place of its own then."""
        ...

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        """Ask it; None where it cannot be, with nothing done. Told Unanswered, ask elsewhere."""
        ...


class EngineClient(Protocol):
    """One engine as the rest of the sidecar sees it.

    Opening one connects to nothing; connections are made by the first call that needs them and
    closed when they have been idle for IDLE_SECONDS.
    """

    engine: Engine

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """Run one statement; raises `Problem`. Cancelling it cancels the engine's work too."""
        ...

    async def ping(self, deadline: Deadline) -> str:
        """The server's version, by a round trip; raises `Problem`."""
        ...

    def pool(self) -> dict[str, int]:
        """Connections now: `size`, `idle`, `inUse`, and `max`, how many there may be."""
        ...

    async def close(self, grace_seconds: float) -> None:
        """Let calls under way finish for `grace_seconds`, then close every connection."""
        ...


class Calls:
    """The calls under way: `with calls:` around each, `async with`, or `enter` and `leave`."""

    def __init__(self) -> None:
        self.count = 0
        # Made by who waits for the last one: nobody does until the end.
        self._none: asyncio.Event | None = None

    def enter(self) -> None:
        """One begins."""
        self.count += 1

    def leave(self) -> None:
        """One has ended."""
        self.count -= 1
        if not self.count and self._none is not None:
            self._none.set()
            self._none = None

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    async def __aenter__(self) -> None:
        self.enter()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def drained(self, seconds: float) -> bool:
        """True as soon as there are none, False when `seconds` are over."""
        try:
            async with asyncio.timeout(seconds):
                while self.count:
                    self._none = self._none or asyncio.Event()
                    await self._none.wait()
        except TimeoutError:
            return False
        return True


class Background:
    """Work that must outlive its caller: cancelling on the server, mending a connection."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, whatever becomes of the caller."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finished(self, seconds: float) -> None:
        """Wait for all of it; what is not done after `seconds` is cancelled."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class answering:
    """Raise whatever the body raises as a `Problem` that names the engine."""

    __slots__ = ("_engine", "_translate")

    def __init__(self, engine: Engine, translate: Translate) -> None:
        self._engine = engine
        self._translate = translate

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        told = None if error is None else self.told(error)
        if told is not error and told is not None:
            raise told from error

    def told(self, error: BaseException) -> BaseException:
        """What is raised in its place, which may be itself."""
        if isinstance(error, Problem):
            error.database = error.database or self._engine
        elif isinstance(error, Exception):
            problem = self._translate(error)
            if problem is not None:
                problem.database = self._engine
                problem.__cause__ = error
                return problem
        return error


def nearest(table: Mapping[type[BaseException], T], error: BaseException) -> T | None:
    """The entry of the closest of the error's classes."""
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return None


@asynccontextmanager
async def capped(deadline: Deadline, seconds: float, what: str) -> AsyncIterator[None]:
    """Give the body `seconds` of its own: past them EngineUnavailable, never past the deadline."""
    try:
        async with deadline.earlier(seconds).enforced():
            yield
    except DeadlineExceeded:
        deadline.remaining()
        raise EngineUnavailable(f"{what} took longer than {seconds:g} s") from None


def tls_context(tls: bool, ca_pem: str | None) -> ssl.SSLContext | None:
    """A verifying context, which trusts `ca_pem` alone where it is given; None without TLS."""
    return ssl.create_default_context(cadata=ca_pem) if tls else None


def text(query: Query, language: str) -> str:
    """The statement as text; raises InvalidRequest."""
    if not isinstance(query.query, str):
        raise InvalidRequest(f"query must be {language} text for this engine")
    if not query.query.strip():
        raise InvalidRequest("query is empty")
    return query.query


def positional(query: Query) -> list[Any]:
    """The parameters as a list; raises ParameterMismatch."""
    if query.params is None:
        return []
    if not isinstance(query.params, list):
        raise ParameterMismatch("params must be a list for this engine: $1 is its first element")
    return query.params


def named(query: Query) -> dict[str, Any]:
    """The parameters as an object; raises ParameterMismatch."""
    if query.params is None:
        return {}
    if not isinstance(query.params, dict):
        raise ParameterMismatch("params must be an object for this engine: names to values")
    return query.params


def no_parameters(query: Query) -> None:
    """Raise ParameterMismatch where there are any."""
    if query.params:
        raise ParameterMismatch("this engine takes no params: the query carries its values")
