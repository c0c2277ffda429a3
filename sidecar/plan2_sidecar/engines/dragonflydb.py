"""DragonflyDB, and Redis: one command a call over a shared connection for each role.

Commands that would block that connection or change its state are refused. Replies become JSON:
text where bytes are UTF-8, else `{"$base64": …}`. Written for what both servers have.
"""

import asyncio
import base64
import binascii
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import hiredis

from plan2_contract.connection import KeyValue, Login
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import (
    Calls,
    Cancel,
    Told,
    answering,
    capped,
    no_parameters,
    tls_context,
)
from plan2_sidecar.engines.dragonflydb_commands import REFUSED, is_read
from plan2_sidecar.engines.dragonflydb_errors import checked
from plan2_sidecar.engines.resp import Argument, Channel
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    Problem,
    QueryRejected,
    ReadOnly,
)
from plan2_sidecar.once import Once
from plan2_sidecar.query import Query, Result

CONNECT_SECONDS: Final = 1.0


class DragonflyDB:
    """One server; reads use `ro` where there is one."""

    def __init__(self, engine: Engine, connection: KeyValue) -> None:
        self.engine = engine
        self._server = connection
        self._tls = tls_context(connection.tls, connection.ca_pem)
        self._channels: dict[str, Channel] = {}
        self._opening: dict[str, asyncio.Lock] = {"rw": asyncio.Lock(), "ro": asyncio.Lock()}
        self._calls = Calls()
        self._answering = answering(engine, _translate)

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """Run one command, a list or text split at spaces; data is its reply."""
        with self._answering:
            kind, command = self._asked(query)
            with self._calls:
                reply = await self._ask(kind, command, deadline)
            return _result(reply, query.max_rows)

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        """`execute` without a task, where the connection is open."""
        seconds = deadline.at - deadline.clock()
        try:
            kind, command = self._asked(query)
            packed = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # any length
        except Exception:  # noqa: BLE001 - nothing was sent: who awaits it is told what is wrong
            return None
        channel = self._channels.get(kind)
        if channel is None or channel.closed or seconds <= 0:
            return None

        def over(outcome: Result | BaseException) -> None:
            self._calls.leave()
            if isinstance(outcome, BaseException):
                outcome = self._answering.told(outcome)
            told(outcome)

        waiting = _Waiting(query.max_rows, seconds, over, channel.loop)
        channel.send(packed, (waiting,))
        self._calls.enter()
        return waiting.cancel

    async def command(self, *words: Argument, deadline: Deadline) -> Any:
        """One command of the sidecar's own: its reply as it came, bytes not decoded."""
        with self._answering, self._calls:
            return await self._ask("rw", list(words), deadline)

    async def both(
        self, one: Sequence[Argument], other: Sequence[Argument], *, deadline: Deadline
    ) -> tuple[Any, Any]:
        """Two commands of the sidecar's own that leave together: both replies as they came."""
        with self._answering, self._calls, deadline.enforced():
            channel = await self._channel("rw", deadline)
            # Both are asked before the first is awaited.
            first, second = channel.ask(*one), channel.ask(*other)
            try:
                replies = await first, await second
            except BaseException:
                # What became of the second is known by the first; asyncio wants it looked at.
                if not second.cancelled() and not second.cancel():
                    second.exception()
                raise
            return checked(replies[0]), checked(replies[1])

    async def track(self, deadline: Deadline) -> Channel:
        """A connection of its own: its `on_push` is told what others change of what it read.

        The server says nothing of a key that expires; one that knows no tracking says nothing.
        """
        with answering(self.engine, _translate):
            async with self._calls, deadline.enforced():
                async with capped(deadline, CONNECT_SECONDS, "connecting"):
                    channel = await self._connect(self._server.rw)
                before = self._channels.get("tracked")
                if before is not None:
                    before.close()
                self._channels["tracked"] = channel
                reply = await channel.ask("CLIENT", "TRACKING", "ON", "NOLOOP")
                if not str(reply).startswith(("ERR", "NOPERM")):
                    checked(reply)
                return channel

    async def on(
        self, channel: Channel, *commands: Sequence[Argument], deadline: Deadline
    ) -> list[Any]:
        """The replies to commands that leave together on a connection of `track`."""
        with self._answering:
            with self._calls, deadline.enforced():
                # All are asked before the first is awaited, so they leave together.
                asked = [channel.ask(*words) for words in commands]
                replies = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
            return [checked(reply) for reply in replies]

    async def ping(self, deadline: Deadline) -> str:
        """The server's version: Dragonfly's own where it gives one."""
        with answering(self.engine, _translate):
            async with self._calls:
                await self._ask("rw", ["PING"], deadline)
            return self._channels["rw"].version

    def pool(self) -> dict[str, int]:
        alive = [channel for channel in self._channels.values() if not channel.closed]
        busy = sum(channel.busy for channel in alive)
        return {
            "size": len(alive),
            "idle": len(alive) - busy,
            "inUse": busy,
            "max": self._server.pool_max,
        }

    async def close(self, grace_seconds: float) -> None:
        await self._calls.drained(grace_seconds)
        for channel in self._channels.values():
            channel.close()
        # A transport ends in the loop's next round.
        await asyncio.sleep(0)

    def _asked(self, query: Query) -> tuple[str, list[Argument]]:
        """The role whose connection it is for, and the command; raises Problem."""
        no_parameters(query)
        command = _command(query.query)
        name = str(command[0]).upper()
        _refuse(name, command)
        if query.read_only and not is_read(name):
            raise ReadOnly(f"{name} is not a read")
        return "ro" if query.read_only and self._server.ro else "rw", command

    async def _ask(self, kind: str, command: list[Argument], deadline: Deadline) -> Any:
        with deadline.enforced():
            channel = self._channels.get(kind)
            if channel is None or channel.closed:
                channel = await self._channel(kind, deadline)
            return checked(await channel.ask(*command))

    async def _channel(self, kind: str, deadline: Deadline) -> Channel:
        channel = self._channels.get(kind)
        if channel is not None and not channel.closed:
            return channel
        async with self._opening[kind]:
            channel = self._channels.get(kind)
            if channel is None or channel.closed:
                login = self._server.ro if kind == "ro" else self._server.rw
                async with capped(deadline, CONNECT_SECONDS, "connecting"):
                    channel = await self._connect(login)
                self._channels[kind] = channel
            return channel

    async def _connect(self, login: Login | None) -> Channel:
        channel = await Channel.open(self._server.host, self._server.port, self._tls)
        try:
            await _greet(channel, login)
        except BaseException:
            channel.close()
            raise
        return channel


class _Waiting(Once):
    """A command under way without a task: told its result, or the Problem."""

    __slots__ = ("_max_rows",)

    def __init__(
        self, max_rows: int | None, seconds: float, told: Told, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(seconds, told, loop)
        self._max_rows = max_rows

    def set_result(self, result: Any, /) -> None:
        """Its reply."""
        outcome: Result | Exception
        try:
            outcome = _result(checked(result), self._max_rows)
        except Exception as error:  # noqa: BLE001 - it is told
            outcome = error
        self._tell(outcome)

    def cancel(self) -> None:
        """Nobody wants it any more; it is told all the same."""
        if not self.done():
            self._tell(asyncio.CancelledError())


async def _greet(channel: Channel, login: Login | None) -> None:
    """Log in, and agree on the newest protocol the server has."""
    user = ["AUTH", login.username, login.password] if login else []
    try:
        hello = await channel.ask("HELLO", "3", *user, "SETNAME", "plan2-sidecar")
        if isinstance(hello, hiredis.ReplyError) and "unknown command" in str(hello).lower():
            hello = await _greet_older(channel, login)
    except ConnectionLost as lost:
        raise EngineUnavailable(lost.detail) from lost
    about = checked(hello)
    version = about.get(b"dragonfly_version") or about.get(b"version") or b""
    channel.version = version.decode(errors="replace").removeprefix("df-v")


async def _greet_older(channel: Channel, login: Login | None) -> Any:
    # Before Redis 6 there are neither users nor HELLO.
    if login is not None:
        checked(await channel.ask("AUTH", login.password))
    about = checked(await channel.ask("INFO", "server"))
    fields = dict(line.partition(b":")[::2] for line in about.splitlines())
    return {b"version": fields.get(b"redis_version", b"")}


def _command(query: Any) -> list[Argument]:
    if isinstance(query, str):
        query = [word for word in query.split(" ") if word]
    if not isinstance(query, list) or not query or not isinstance(query[0], str):
        raise InvalidRequest('query must be a command: ["SET", "k", "v"], or "GET k"')
    return [_argument(item) for item in query]


def _argument(item: Any) -> Argument:
    if isinstance(item, str):
        return item
    if isinstance(item, int | float) and not isinstance(item, bool):
        return item
    if isinstance(item, Decimal):
        return str(item)
    if isinstance(item, dict) and list(item) == ["$base64"] and isinstance(item["$base64"], str):
        try:
            return base64.b64decode(item["$base64"], validate=True)
        except binascii.Error as error:
            raise InvalidRequest(f"$base64: {error}") from None
    raise InvalidRequest('an argument is a string, a number or {"$base64": …}')


def _refuse(name: str, command: list[Argument]) -> None:
    if name in REFUSED or (name in ("XREAD", "XREADGROUP") and _blocks(command)):
        raise QueryRejected(f"{name} would hold or change the connection, which all calls share")


def _blocks(command: list[Argument]) -> bool:
    """Whether BLOCK is among the options; a stream may be called anything."""
    for item in command:
        word = item if isinstance(item, bytes) else str(item).encode()
        if word.upper() in (b"STREAMS", b"BLOCK"):
            return word.upper() == b"BLOCK"
    return False


def _result(reply: Any, max_rows: int | None) -> Result:
    if not isinstance(reply, list):
        rows = 0 if reply is None else len(reply) if isinstance(reply, dict) else 1
        return Result(data=_plain(reply), row_count=rows)
    kept = reply if max_rows is None else reply[:max_rows]
    return Result(data=_plain(kept), row_count=len(kept), truncated=len(kept) < len(reply))


def _plain(reply: Any) -> Any:
    """A reply as JSON types."""
    if isinstance(reply, bytes):
        try:
            return reply.decode()
        except UnicodeDecodeError:
            return {"$base64": base64.b64encode(reply).decode()}
    if isinstance(reply, list | tuple):
        return [_plain(item) for item in reply]
    if isinstance(reply, dict):
        return _object(reply)
    if isinstance(reply, float) and not math.isfinite(reply):
        return str(reply)
    if isinstance(reply, hiredis.ReplyError):
        return {"$error": str(reply)}
    return reply


def _object(reply: dict[Any, Any]) -> Any:
    """An object, or pairs where a key is not text."""
    pairs = [(_plain(key), _plain(value)) for key, value in reply.items()]
    if all(isinstance(key, str | int) for key, _ in pairs):
        return {str(key): value for key, value in pairs}
    return [list(pair) for pair in pairs]


def _translate(error: Exception) -> Problem | None:
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(str(error) or "timed out")
    # Sent commands never raise it: Channel answers those with ConnectionLost.
    return EngineUnavailable(str(error)) if isinstance(error, OSError) else None
