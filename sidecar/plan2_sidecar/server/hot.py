"""The calls on the short way, and how their answers are written. Pure but for the clock.

A call takes a whole plain request and answers at once, or later, or not at all: None leaves the
request to aiohttp, untouched. It must not have done anything then.
"""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from plan2_sidecar.api.reply import Reply
from plan2_sidecar.server import internals
from plan2_sidecar.server.heads import Headers, Remembered
from plan2_sidecar.server.later import Later

# What needs no decoding, and is neither "." nor "..": anything else in a path is aiohttp's to read.
_PLAIN_ARGUMENT: Final = rb"(?!\.\.? )[A-Za-z0-9._~-]+"
# CONNECT would turn the rest of the connection into something else.
_CUTTABLE: Final = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) [\x21-\x7e]+ HTTP/1\.1")
# A longer body gains nothing from being held here: aiohttp reads it as it comes.
LONGEST_BODY: Final = 64 * 1024
# Whole heads that are remembered: those of calls, and no longer than clients mostly send.
_REMEMBERED: Final = 512
_LONGEST_REMEMBERED: Final = 512


class Request(msgspec.Struct, frozen=True):
    """One request: what the path's last part is, where the call has one, and the body."""

    headers: Headers
    argument: str
    body: bytes
    started: float


Answer = Reply | Later | Coroutine[Any, Any, Reply] | None
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
        self._calls = {f"{call.method} {call.path}".encode(): call for call in calls}
        whole = [re.escape(start) for start in self._calls if not start.endswith(b"/")]
        begun = [re.escape(start) for start in self._calls if start.endswith(b"/")]
        lines = (b"|".join(whole), b"|".join(begun), _PLAIN_ARGUMENT)
        self._line = re.compile(b"(?:(%b)|(%b)(%b)) HTTP/1\\.1" % lines)

    def find(self, line: bytes) -> tuple[HotCall, str] | None:
        """The call of a request line, and its argument; None for any other line."""
        found = self._line.fullmatch(line)
        if found is None:
            return None
        whole, begun, argument = found.groups()
        return (self._calls[begun], argument.decode()) if begun else (self._calls[whole], "")


class Head(NamedTuple):
    """What a request's head says; `call` is None where the request is aiohttp's."""

    call: HotCall | None
    argument: str
    headers: Headers


class Heads:
    """Reads heads. Clients ask the same again and again: what was read is remembered."""

    def __init__(self, calls: HotCalls, longest_deadline_ms: int) -> None:
        self._calls = calls
        self._headers = Remembered(longest_deadline_ms)
        # To be asked before `read` is.
        self.known: dict[bytes, Head] = {}

    def read(self, head: bytes) -> Head | None:
        """All before the empty line; None where nobody here knows where the request ends."""
        line, _, block = head.partition(b"\r\n")
        call, argument = self._calls.find(line) or (None, "")
        if call is None and _CUTTABLE.fullmatch(line) is None:
            return None
        headers = self._headers.read(block)
        if headers is None:
            return None
        if headers.length > LONGEST_BODY:
            call = None
        found = Head(call, argument, headers)
        if call is not None and len(head) <= _LONGEST_REMEMBERED:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[head] = found
        return found


def render(reply: Reply) -> bytes:
    """The reply as aiohttp would write it on a connection that stays open."""
    body = reply.body
    start, length, end = _lines(reply.status, reply.headers, reply.content_type, internals.date())
    if reply.more:
        start += "".join([f"{name}: {value}\r\n" for name, value in reply.more]).encode()
    if body is None:
        return start + end
    return b"%b%b%d\r\n%b%b" % (start, length, len(body), end, body)


@lru_cache(maxsize=128)
def _lines(
    status: int, headers: tuple[tuple[str, str], ...], content_type: str, date: bytes
) -> tuple[bytes, bytes, bytes]:
    """What stands before the lines of this answer alone, before its length, and after it."""
    lines = [f"HTTP/1.1 {status} {internals.reason(status)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return (
        "\r\n".join([*lines, ""]).encode(),
        f"Content-Type: {content_type}\r\nContent-Length: ".encode(),
        b"Date: %b\r\nServer: %b\r\n\r\n" % (date, internals.SERVER),
    )
