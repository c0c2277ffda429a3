"""One connection of the API: whole plain requests are answered at once, the rest is aiohttp's.

What arrives is cut into requests here only as far as needed to know where one ends, so that
both may serve the same connection, one request after the other. A request that comes in pieces
is held until it is whole, unless it is long. What cannot be cut (chunked bodies, other
versions, anything odd) makes the rest of the connection aiohttp's, for good.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from aiohttp import web

from plan2_sidecar.api.reply import Reply
from plan2_sidecar.deadline import Clock
from plan2_sidecar.server import heads, internals
from plan2_sidecar.server.hot import Answer, HotCall, HotCalls, Request, render

_END: Final = b"\r\n\r\n"
# CONNECT would turn the rest of the connection into something else.
_CUTTABLE: Final = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) [\x21-\x7e]+ HTTP/1\.1")
_LONGEST_LINE: Final = 2048
_LONGEST_HEAD: Final = _LONGEST_LINE + heads.LONGEST
# A longer body gains nothing from being held here: aiohttp reads it as it comes.
LONGEST_BODY: Final = 64 * 1024
_LONGEST_HELD: Final = 4 * LONGEST_BODY


class Admission(Protocol):
    """Who may call: the door, asked with a head that was read."""

    def __call__(self, headers: heads.Headers, *, on_socket: bool) -> bool:
        """False leaves the request to aiohttp, whose answer says what is wrong."""
        ...


class Hot:
    """What all connections share."""

    def __init__(
        self,
        calls: HotCalls,
        admits: Admission,
        told: Callable[[BaseException], Reply],
        counted: Callable[[str, str, int], None],
        clock: Clock,
        longest_deadline_ms: int,
    ) -> None:
        self.calls = calls
        self.admits = admits
        self.told = told
        self.counted = counted
        self.clock = clock
        self.headers = heads.Remembered(longest_deadline_ms)


class HotHandler(web.RequestHandler):
    """aiohttp's protocol with the short way in front."""

    __slots__ = (
        "_answering",
        "_answering_call",
        "_full",
        "_held",
        "_held_back",
        "_hot",
        "_on_socket",
        "_slow_for_good",
        "_slow_left",
    )

    def __init__(self, manager: Any, *, hot: Hot | None, **options: Any) -> None:
        super().__init__(manager, **options)
        self._hot = hot
        self._slow_for_good = hot is None
        self._held = b""
        self._held_back = False
        self._full = False
        self._slow_left = 0
        self._on_socket = False
        self._answering: asyncio.Future[Reply] | None = None
        self._answering_call: HotCall | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        self._on_socket = connection is not None and connection.family == socket.AF_UNIX

    def data_received(self, data: bytes) -> None:
        # aiohttp itself calls this with nothing, to have its parser go on.
        if self._slow_for_good or not data:
            super().data_received(data)
            return
        if self._held:
            data = self._held + data
            self._held = b""
        if self._answering is not None:
            self._hold(data)
            return
        self._advance(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._held = b""
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Let the call under way finish, then do as aiohttp does."""
        if self._answering is not None:
            await asyncio.wait({self._answering}, timeout=timeout)
        await super().shutdown(timeout)

    def _advance(self, data: bytes) -> None:
        """Answer or hand over the requests in `data`, in order; hold what is not whole."""
        answers: list[bytes] = []
        while data and self._answering is None and not self._slow_for_good:
            if self._slow_left:
                data = self._hand_over(data, self._slow_left)
                continue
            ended = data.find(_END)
            if ended < 0:
                if len(data) > _LONGEST_HEAD or self.writing_paused:
                    data = self._hand_over_for_good(answers, data)
                break
            data = self._one(data, ended, answers)
            if self._held_back:
                self._held_back = False
                break
        if answers:
            self._write(answers)
        if data and not self._slow_for_good:
            self._hold(data)

    def _one(self, data: bytes, ended: int, answers: list[bytes]) -> bytes:
        """Deal with the request whose head ends at `ended`; what is left of `data`."""
        hot = self._hot
        assert hot is not None
        line_end = data.find(b"\r\n")
        line = data[:line_end]
        found = hot.calls.find(line)
        headers = None
        if found is not None or _CUTTABLE.fullmatch(line):
            headers = hot.headers.read(data[line_end + 2 : ended + 2])
        if headers is None:
            return self._hand_over_for_good(answers, data)
        body_start = ended + len(_END)
        length = headers.length
        total = body_start + length
        if (
            found is None
            or length > LONGEST_BODY
            or self.writing_paused
            or not internals.is_idle(self)
        ):
            self._write(answers)
            return self._hand_over(data, total)
        if len(data) < total:
            self._held_back = True
            return data
        call, argument = found
        answer: Answer = None
        if hot.admits(headers, on_socket=self._on_socket):
            request = Request(headers, argument, data[body_start:total], hot.clock())
            try:
                answer = call.answer(request)
            except Exception as error:  # noqa: BLE001 - it is told and logged there
                answer = hot.told(error)
        if answer is None:
            self._write(answers)
            return self._hand_over(data, total)
        if isinstance(answer, Reply):
            hot.counted(call.pattern, call.method, answer.status)
            answers.append(render(answer))
            internals.touch(self, self._loop.time())
        else:
            self._write(answers)
            self._wait_for(call, answer)
        return data[total:]

    def _wait_for(self, call: HotCall, answer: Coroutine[Any, Any, Reply]) -> None:
        self._answering = self._loop.create_task(answer)
        self._answering_call = call
        self._answering.add_done_callback(self._answered)

    def _answered(self, done: "asyncio.Future[Reply]") -> None:
        call, self._answering = self._answering_call, None
        if self.transport is None or done.cancelled() or call is None:
            return
        assert self._hot is not None
        error = done.exception()
        reply = done.result() if error is None else self._hot.told(error)
        self._hot.counted(call.pattern, call.method, reply.status)
        self._write([render(reply)])
        internals.touch(self, self._loop.time())
        held, self._held = self._held, b""
        if self._full:
            self._full = False
            self.transport.resume_reading()
        self._advance(held)

    def _hand_over(self, data: bytes, count: int) -> bytes:
        """Give aiohttp the next `count` bytes of what is one request; what is left of `data`."""
        part = data[:count]
        self._slow_left = count - len(part)
        super().data_received(part)
        return data[count:]

    def _hand_over_for_good(self, answers: list[bytes], data: bytes) -> bytes:
        self._write(answers)
        self._slow_for_good = True
        super().data_received(data)
        return b""

    def _hold(self, data: bytes) -> None:
        self._held = data
        if len(data) > _LONGEST_HELD and not self._full and self.transport is not None:
            self._full = True
            self.transport.pause_reading()

    def _write(self, answers: list[bytes]) -> None:
        if answers and self.transport is not None:
            self.transport.write(answers[0] if len(answers) == 1 else b"".join(answers))
            answers.clear()
