"""One connection of the API: whole plain requests are answered at once, the rest is aiohttp's.

What arrives is cut into requests here only as far as needed to know where one ends, so that
both may serve the same connection, one request after the other. A request that comes in pieces
is held until it is whole, unless it is long. What cannot be cut (chunked bodies, other
versions, anything odd) makes the rest of the connection aiohttp's, for good.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web

from plan2_sidecar.api.reply import Reply
from plan2_sidecar.deadline import Clock
from plan2_sidecar.server import heads, internals
from plan2_sidecar.server.hot import (
    LONGEST_BODY,
    Answer,
    Head,
    Heads,
    HotCall,
    HotCalls,
    Request,
    render,
)
from plan2_sidecar.server.later import Later, Outcome

_END: Final = b"\r\n\r\n"
_LONGEST_LINE: Final = 2048
_LONGEST_HEAD: Final = _LONGEST_LINE + heads.LONGEST
_LONGEST_HELD: Final = 4 * LONGEST_BODY
_THIS_MACHINE: Final = ("127.0.0.1", "::1")


def _unpaced(connection: socket.socket) -> None:
    """Send to a caller on this machine whatever there is at once.

    Some hosts have the kernel pace all of TCP (BBR), which is for long ways: on this one it is
    timers and wake-ups for nothing.
    """
    # The caller may have gone; other systems than Linux have no such option.
    with contextlib.suppress(OSError, AttributeError):
        if connection.getpeername()[0] in _THIS_MACHINE:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


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
        self.heads = Heads(calls, longest_deadline_ms)
        self.admits = admits
        self.told = told
        self.counted = counted
        self.clock = clock


class HotHandler(web.RequestHandler):
    """aiohttp's protocol with the short way in front."""

    __slots__ = (
        "_answering",
        "_answering_call",
        "_full",
        "_held",
        "_hot",
        "_on_socket",
        "_slow_for_good",
        "_slow_left",
    )

    def __init__(self, manager: Any, *, hot: Hot | None, **options: Any) -> None:
        super().__init__(manager, **options)
        # Nobody asks for it where all is aiohttp's.
        self._hot = cast(Hot, hot)
        self._slow_for_good = hot is None
        self._held = b""
        self._full = False
        self._slow_left = 0
        self._on_socket = False
        self._answering: Later | None = None
        self._answering_call: HotCall | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # An answer leaves at once, not at the end of the loop's turn; and to wait for the caller
        # is to wait until all was sent.
        cast(asyncio.Transport, transport).set_write_buffer_limits(0)
        connection = transport.get_extra_info("socket")
        self._on_socket = connection is not None and connection.family == socket.AF_UNIX
        if connection is not None and not self._on_socket:
            _unpaced(connection)

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
            try:
                async with asyncio.timeout(timeout):
                    await self._answering.over()
            except TimeoutError:
                pass
        await super().shutdown(timeout)

    def _advance(self, data: bytes) -> None:
        """Answer or hand over the requests in `data`, in order; hold what is not whole."""
        reader = self._hot.heads
        answers: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._slow_left:
                at = self._hand_over(data, at, self._slow_left)
                continue
            ended = data.find(_END, at)
            if ended < 0:
                if size - at > _LONGEST_HEAD or self.writing_paused:
                    at = self._hand_over_for_good(answers, data, at)
                break
            begun = data[at:ended]
            head = reader.known.get(begun) or reader.read(begun)
            if head is None:
                at = self._hand_over_for_good(answers, data, at)
                break
            start = ended + len(_END)
            stop = start + head.headers.length
            if head.call is None or self.writing_paused or not internals.is_idle(self):
                self._write(answers)
                at = self._hand_over(data, at, stop - at)
            elif stop > size:
                break
            elif self._answers(head, data[start:stop], answers):
                at = stop
                if self._answering is not None:
                    break
            else:
                self._write(answers)
                at = self._hand_over(data, at, stop - at)
        if answers:
            self._write(answers)
        if at < size:
            self._hold(data[at:])

    def _answers(self, head: Head, body: bytes, answers: list[bytes]) -> bool:
        """Answer one whole request, now or later; False leaves it to aiohttp."""
        hot, (call, argument, headers) = self._hot, head
        assert call is not None
        if not hot.admits(headers, on_socket=self._on_socket):
            return False
        answer: Answer
        try:
            answer = call.answer(Request(headers, argument, body, hot.clock()))
        except Exception as error:  # noqa: BLE001 - it is told and logged there
            answer = hot.told(error)
        if answer is None:
            return False
        if isinstance(answer, Reply):
            hot.counted(call.pattern, call.method, answer.status)
            answers.append(render(answer))
            internals.touch(self, self._loop.time())
        else:
            if answers:
                self._write(answers)
            if not isinstance(answer, Later):
                work, answer = answer, Later()
                answer.become(work)
            self._answering = answer
            self._answering_call = call
            answer.then(self._answered)
        return True

    def _answered(self, outcome: Outcome) -> None:
        hot, call, transport = self._hot, self._answering_call, self.transport
        self._answering = None
        if transport is None or call is None:
            return
        reply = outcome if isinstance(outcome, Reply) else hot.told(outcome)
        hot.counted(call.pattern, call.method, reply.status)
        transport.write(render(reply))
        internals.touch(self, self._loop.time())
        if self._full:
            self._full = False
            transport.resume_reading()
        if self._held:
            held, self._held = self._held, b""
            self._advance(held)

    def _hand_over(self, data: bytes, at: int, count: int) -> int:
        """Give aiohttp the next `count` bytes of what is one request; where the next one begins."""
        part = data[at : at + count]
        self._slow_left = count - len(part)
        super().data_received(part)
        return at + len(part)

    def _hand_over_for_good(self, answers: list[bytes], data: bytes, at: int) -> int:
        self._write(answers)
        self._slow_for_good = True
        super().data_received(data[at:])
        return len(data)

    def _hold(self, data: bytes) -> None:
        self._held = data
        if len(data) > _LONGEST_HELD and not self._full and self.transport is not None:
            self._full = True
            self.transport.pause_reading()

    def _write(self, answers: list[bytes]) -> None:
        if answers and self.transport is not None:
            self.transport.write(answers[0] if len(answers) == 1 else b"".join(answers))
            answers.clear()
