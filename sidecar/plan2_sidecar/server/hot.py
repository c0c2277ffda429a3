"""The calls on the short way, and how their answers are written. Pure but for the clock.

A call takes a whole plain request and answers at once, or later, or not at all: None leaves the
request to aiohttp, untouched. It must not have done anything then.
"""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from plan2_sidecar.api.reply import Reply
from plan2_sidecar.server import internals
from plan2_sidecar.server.heads import Headers

_VERSION: Final = b" HTTP/1.1"
# What needs no decoding: anything else in a path is aiohttp's to read.
_PLAIN_ARGUMENT: Final = re.compile(rb"[A-Za-z0-9._~-]+")


@dataclass(slots=True)
class Request:
    """One request: what the path's last part is, where the call has one, and the body."""

    headers: Headers
    argument: str
    body: bytes
    started: float


Answer = Reply | Coroutine[Any, Any, Reply] | None
Answering = Callable[[Request], Answer]


@dataclass(frozen=True, slots=True)
class HotCall:
    """`path` ends in `/` where the call takes one more part; `pattern` is the route's name."""

    method: str
    path: str
    pattern: str
    answer: Answering


class HotCalls:
    """All of them, found by a request line."""

    def __init__(self, calls: tuple[HotCall, ...]) -> None:
        self._exact: dict[bytes, HotCall] = {}
        self._prefixed: dict[bytes, HotCall] = {}
        for call in calls:
            start = f"{call.method} {call.path}".encode()
            if call.path.endswith("/"):
                self._prefixed[start] = call
            else:
                self._exact[start + _VERSION] = call

    def find(self, line: bytes) -> tuple[HotCall, str] | None:
        """The call of a request line, and its argument; None for any other line."""
        call = self._exact.get(line)
        if call is not None:
            return call, ""
        if not line.endswith(_VERSION):
            return None
        cut = line.rfind(b"/", 0, -len(_VERSION)) + 1
        call = self._prefixed.get(line[:cut])
        if call is None:
            return None
        argument = line[cut : -len(_VERSION)]
        if _PLAIN_ARGUMENT.fullmatch(argument) is None or argument in (b".", b".."):
            return None
        return call, argument.decode("ascii")


def render(reply: Reply) -> bytes:
    """The reply as aiohttp would write it on a connection that stays open."""
    status, body, headers, content_type, more = reply
    start = _start(status, headers)
    if more:
        lines = "".join([f"{name}: {value}\r\n" for name, value in more])
        start = start + lines.encode()
    if body is None:
        return b"%b%b" % (start, _end(internals.date()))
    return b"%b%b%d\r\n%b%b" % (
        start,
        _length(content_type),
        len(body),
        _end(internals.date()),
        body,
    )


@lru_cache(maxsize=256)
def _start(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {status} {internals.reason(status)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, ""]).encode()


@lru_cache(maxsize=2)
def _end(date: bytes) -> bytes:
    return b"Date: %b\r\nServer: %b\r\n\r\n" % (date, internals.SERVER)


@lru_cache(maxsize=16)
def _length(content_type: str) -> bytes:
    return f"Content-Type: {content_type}\r\nContent-Length: ".encode()
