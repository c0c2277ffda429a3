"""ClickHouse's answer passed on while it comes, and what went wrong after it began found in it.

A statement that fails half-way has its message behind the rows sent so far, under status 200.
So the end of what came is held back until more comes, or until it proves to be a whole one.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import aiohttp

from plan2_sidecar.engines.clickhouse_errors import in_text
from plan2_sidecar.engines.http import Piece, joined
from plan2_sidecar.engines.http_chunks import Part
from plan2_sidecar.errors import ConnectionLost
from plan2_sidecar.query import Chunk

_ARROW_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# A message is no longer than this, as a rule, and some lines are no longer.
_MESSAGE_BYTES: Final = 16_384
_PIECE_BYTES: Final = 65_536
# In every message, and next to never in a row.
_SAYS: Final = b". DB::Exception: "
_CUT: Final = "the engine's answer was cut short"


async def rows(pieces: AsyncIterator[Piece]) -> AsyncGenerator[Chunk, None]:
    """JSONEachRow as it comes, in whole lines; raises Problem at the first that is no row.

    What a chunk has is what it is until the next is asked for.
    """
    held: list[bytes] = []
    size, enough = 0, _PIECE_BYTES
    broken = False
    async for piece in _until_broken(pieces, held):
        if broken and size >= 2 * _PIECE_BYTES:
            # Behind a message nothing comes that matters.
            continue
        parts = [_part(piece)] if isinstance(piece, bytes) else piece
        size += sum(part.end - part.start for part in parts)
        whole: list[Part] = []
        rest = b""
        if size >= enough and not broken:
            whole, rest = _cut([*map(_part, held), *parts])
            broken = bool(whole) and not _are_rows(whole)
        if not whole or broken:
            held.append(joined(parts))
        else:
            held[:] = [rest]
            size = len(rest)
            count = sum(part.lines() for part in whole)
            yield Chunk([part.view() for part in whole], count)
        # A long line is not looked through anew with every piece of it.
        enough = max(_PIECE_BYTES, 2 * size)
    rest = b"".join(held)
    if rest and not (_all_rows(rest) and rest.endswith(b"}\n")):
        raise in_text(rest) or ConnectionLost(_CUT)
    if rest:
        yield Chunk(rest, rest.count(b"\n"))


async def arrow(pieces: AsyncIterator[Piece]) -> AsyncGenerator[Chunk, None]:
    """An Arrow stream as it comes; raises Problem when it does not end as one."""
    held: list[bytes] = []
    size = 0
    async for piece in _until_broken(pieces, held):
        held.append(joined(piece))
        size += len(held[-1])
        if size >= _PIECE_BYTES + _MESSAGE_BYTES:
            whole = b"".join(held)
            held[:] = [whole[-_MESSAGE_BYTES:]]
            size = _MESSAGE_BYTES
            yield Chunk(whole[:-_MESSAGE_BYTES], 0)
    rest = b"".join(held)
    if rest and not rest.endswith(_ARROW_END):
        raise in_text(rest) or ConnectionLost(_CUT)
    if rest:
        yield Chunk(rest, 0)


async def _until_broken(pieces: AsyncIterator[Piece], held: list[bytes]) -> AsyncIterator[Piece]:
    """The pieces; a connection that breaks behind a message ends them."""
    try:
        async for piece in pieces:
            yield piece
    except aiohttp.ClientPayloadError:
        # Newer servers break it on purpose, so that nobody takes the answer for a whole one.
        if in_text(b"".join(held)[-_MESSAGE_BYTES:]) is None:
            raise


def _part(piece: bytes) -> Part:
    return Part(piece, 0, len(piece))


def _cut(parts: list[Part]) -> tuple[list[Part], bytes]:
    """What came before the last whole line, and what is left: it waits too.

    A message may stand right behind a row. The last part of the former has at least a line.
    """
    end, last = _last_line(tail := _taken_off(parts, _MESSAGE_BYTES))
    if not last:
        # It is a long one.
        end, _ = _last_line(tail := joined(parts) + tail)
        parts.clear()
    return [*parts, Part(tail, 0, end)] if end else [], tail[end:]


def _taken_off(parts: list[Part], size: int) -> bytes:
    """So many bytes of their end, or a few more, which they have no longer."""
    tail = b""
    while parts and len(tail) < size:
        part = parts.pop()
        start = max(part.start, part.end - size)
        tail = bytes(part.buffer[start : part.end]) + tail
        if start > part.start:
            parts.append(part._replace(end=start))
    return tail


def _last_line(piece: bytes) -> tuple[int, int]:
    """Where the last whole line begins, and the one before it; 0 where it may begin before."""
    end = piece.rfind(b"\n", 0, max(piece.rfind(b"\n"), 0)) + 1
    return end, piece.rfind(b"\n", 0, max(end - 1, 0)) + 1


def _are_rows(lines: list[Part]) -> bool:
    """No line belongs to a message.

    Either the line that says it is one is near the end, or the last is one of those before it:
    behind a message nothing comes. To look at each line takes longer than all else that is done
    about a row.
    """
    first, last = lines[0], lines[-1]
    begun = last.buffer.rfind(b"\n", 0, last.end - 1) + 1
    if not (
        first.buffer.startswith(b"{", first.start, first.end)
        and last.buffer.startswith(b"{", begun, last.end)
    ):
        return False
    # Backwards, which is several times as fast.
    return last.buffer.rfind(_SAYS, 0, last.end) < 0 or _all_rows(joined(lines))


def _all_rows(lines: bytes) -> bool:
    return lines.startswith(b"{") and lines.count(b"\n{") == lines.count(b"\n") - 1
