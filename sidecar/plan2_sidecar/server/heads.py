"""A request's headers, read only when they are plain. Pure.

Plain is what every usual client sends: ASCII, each header that matters at most once, a length
and no coding. Anything else is not refused here; it is aiohttp's, which knows all of HTTP.
Clients send the same headers on every call, so what was read is remembered by its bytes.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 4096
_REMEMBERED: Final = 512
_MOST_LINES: Final = 64

_LINE: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):"
    rb"[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?[ \t]*"
)
_JSON: Final = frozenset({b"application/json", b"application/json; charset=utf-8"})
_ACCEPTED: Final = frozenset({b"*/*", b"application/json", b"application/json, */*"})
# What changes the meaning of a message, or of an answer, in a way only aiohttp knows.
_NOT_PLAIN: Final = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer"}
    | {b"origin", b"range", b"x-http-method-override"}
)
_READ: Final = frozenset(
    {b"host", b"authorization", b"content-length", b"content-type", b"accept", b"connection"}
    | {b"x-deadline-ms", b"plan2-namespace"}
)


@dataclass(slots=True)
class Headers:
    """What the short way wants to know; None is "not sent".

    `admitted` is for the door's own use: these headers come again with every call.
    """

    length: int
    host: str | None
    authorization: str | None
    json: bool
    deadline_ms: int | None
    namespace: str | None
    admitted: object = None


class Remembered:
    """Reads header blocks, each once, for as long as it is in use."""

    def __init__(self, longest_deadline_ms: int) -> None:
        self._longest_deadline_ms = longest_deadline_ms
        self._known: OrderedDict[bytes, Headers | None] = OrderedDict()

    def read(self, block: bytes) -> Headers | None:
        """The lines between the request line and the empty line; None when not plain."""
        known = self._known
        if block in known:
            return known[block]
        found = parse(block, self._longest_deadline_ms)
        known[block] = found
        if len(known) > _REMEMBERED:
            known.popitem(last=False)
        return found


def parse(block: bytes, longest_deadline_ms: int) -> Headers | None:
    """The lines of `block`, CR LF between them; None when anything in it is not plain."""
    if len(block) > LONGEST:
        return None
    lines = block.split(b"\r\n") if block else []
    if len(lines) > _MOST_LINES:
        return None
    values: dict[bytes, bytes] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name in _NOT_PLAIN or name in values:
            return None
        if name in _READ:
            values[name] = match[2] or b""
    return _judged(values, longest_deadline_ms)


def _judged(values: dict[bytes, bytes], longest_deadline_ms: int) -> Headers | None:
    length = _digits(values.get(b"content-length", b"0"), 10)
    deadline_ms = None
    if b"x-deadline-ms" in values:
        deadline_ms = _digits(values[b"x-deadline-ms"], 6)
        if deadline_ms is None or not 1 <= deadline_ms <= longest_deadline_ms:
            return None
    if (
        length is None
        or not values.get(b"host")
        or values.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or values.get(b"accept", b"*/*") not in _ACCEPTED
    ):
        return None
    return Headers(
        length=length,
        host=_text(values.get(b"host")),
        authorization=_text(values.get(b"authorization")),
        json=values.get(b"content-type", b"").lower() in _JSON,
        deadline_ms=deadline_ms,
        namespace=_text(values.get(b"plan2-namespace")),
    )


def _digits(text: bytes, most: int) -> int | None:
    return int(text) if text.isdigit() and len(text) <= most else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii")
