"""The chunks of a long answer, cut out of what a connection reads instead of by aiohttp's parser.

That one copies every piece and hands each on alone, which costs more than passing rows on does.
It still reads the head, and whatever is no plain chunk: the last one, and all that is odd.
"""

import re
from typing import Final, NamedTuple

_LONGEST_HEAD: Final = 65_536
_CODING: Final = re.compile(rb"\r\n(?:Transfer-Encoding|Content-Length):([^\r\n]*)", re.IGNORECASE)
_FIRST: Final = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_NEXT: Final = re.compile(rb"\r\n([0-9a-fA-F]{1,8})\r\n")
_BEGUN: Final = {
    _FIRST: re.compile(rb"[0-9a-fA-F]{0,8}\r?"),
    _NEXT: re.compile(rb"\r?|\r\n[0-9a-fA-F]{0,8}\r?"),
}
# No chunk begins like this: what aiohttp says of it is what it says of any broken chunk.
_BROKEN: Final = b"!\r\n"
# What counting a part is decided by, and how much is counted in one go: it stays in the cache.
_SAMPLE_BYTES: Final = 4_096
_STEP_BYTES: Final = 32_768
# `bytes.count` looks at each byte for itself; `bytes.replace` has the C library find them, which
# is faster from here on: twice as fast in lines of 80 bytes.
_LONG_LINE_BYTES: Final = 48


class Part(NamedTuple):
    """A stretch of a buffer, which is what it is until the buffer is filled anew."""

    buffer: bytes | bytearray
    start: int
    end: int

    def view(self) -> memoryview:
        """It, without copying it."""
        return memoryview(self.buffer)[self.start : self.end]

    def lines(self) -> int:
        """How many line feeds it has."""
        buffer, start, end = self
        sample = min(start + _SAMPLE_BYTES, end)
        count = buffer.count(b"\n", start, sample)
        if count * _LONG_LINE_BYTES > sample - start:
            return count + buffer.count(b"\n", sample, end)
        for at in range(sample, end, _STEP_BYTES):
            step = buffer[at : min(at + _STEP_BYTES, end)]
            count += len(step) - len(step.replace(b"\n", b""))
        return count


class Chunks:
    """One answer's chunks. `over` is True when all that comes next is aiohttp's."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.headed = False
        self.over = False
        self._line = _FIRST
        self._left = 0
        self._held = b""

    def head(self, data: bytes) -> bytes:
        """Read on until the head is whole; what of it all is for aiohttp."""
        data = self._held + data
        self._held = b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 and len(data) <= _LONGEST_HEAD:
            self._held = data
            return b""
        coded = [found.strip().lower() for found in _CODING.findall(data, 0, max(end - 2, 0))]
        if coded != [b"chunked"] or not data.startswith(b"HTTP/1.1 200 "):
            self.over = True
            return data
        self.headed = True
        return data[:end] + self.feed(data, end, len(data))

    def feed(self, data: bytes | bytearray, at: int, size: int) -> bytes:
        """Add what is in chunks to `parts`, without copying it; the rest, for aiohttp.

        What came is `data` from `at` to `size`.
        """
        if self._held:
            data = self._held + data[at:size]
            at, size = 0, len(data)
            self._held = b""
        left, line = self._left, self._line
        while at < size:
            if left:
                end = min(at + left, size)
                self.parts.append(Part(data, at, end))
                left -= end - at
                at = end
                continue
            found = line.match(data, at, size)
            if found is not None and (left := int(found[1], 16)):
                at, line = found.end(), _NEXT
                continue
            if found is None and _BEGUN[line].fullmatch(data, at, size):
                self._held = bytes(data[at:size])
                break
            self.over = True
            return _other(bytes(data[at:size]), first=line is _FIRST)
        self._left, self._line = left, line
        return b""


def _other(data: bytes, *, first: bool) -> bytes:
    """What stands where a chunk would begin, for one who has not seen those before it."""
    if first:
        return data
    return data[2:] if data.startswith(b"\r\n") else _BROKEN
