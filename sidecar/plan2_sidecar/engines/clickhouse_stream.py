"""ClickHouse's answer passed on while it comes, and what went wrong after it began found in it.

A statement that fails half-way has its message behind the rows sent so far, under status 200.
So the end of what came is held back until more comes, or until it proves to be a whole one.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import aiohttp

from plan2_sidecar.engines.clickhouse_errors import in_text
from plan2_sidecar.engines.http import Piece, joined
from plan2_sidecar.errors import ConnectionLost
from plan2_sidecar.query import Chunk

_ARROW_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_MESSAGE_BYTES: Final = 16_384
_PIECE_BYTES: Final = 65_536
# In every message, and next to never in a row.
_SAYS: Final = b". DB::Exception: "
# Two lines are in so much, as a rule.
_LINES_BYTES: Final = 4096
_CUT: Final = "the engine's answer was cut short"


async def rows(pieces: AsyncIterator[Piece]) -> AsyncGenerator[Chunk, None]:
    """JSONEachRow as it comes, in whole lines; raises Problem at the first that is no row."""
    held: list[bytes] = []
    size, enough = 0, _PIECE_BYTES
    broken = False
    async for piece in _until_broken(pieces, held):
        if broken and size >= 2 * _PIECE_BYTES:
            # Behind a message nothing comes that matters.
            continue
        parts = [memoryview(piece)] if isinstance(piece, bytes) else piece
        size += sum(map(len, parts))
        whole = rest = b""
        if size >= enough and not broken:
            whole, rest = _cut(held, parts)
            broken = bool(whole) and not _are_rows(whole)
        if not whole or broken:
            held.append(b"".join(parts))
        else:
            held[:] = [rest]
            size = len(rest)
            yield Chunk(whole, whole.count(b"\n"))
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


def _cut(held: list[bytes], parts: list[memoryview]) -> tuple[bytes, bytes]:
    """What came before the last whole line, and what is left: it waits too.

    A message may stand right behind a row.
    """
    last = bytes(parts[-1][-_LINES_BYTES:])
    end = _last_line(last)
    if end:
        whole = b"".join((*held, *parts[:-1], parts[-1][: end - len(last)]))
        return whole, last[end:]
    everything = b"".join((*held, *parts))
    end = _last_line(everything)
    return everything[:end], everything[end:]


def _last_line(piece: bytes) -> int:
    """Where the last whole line begins, if there is one before it."""
    return piece.rfind(b"\n", 0, max(piece.rfind(b"\n"), 0)) + 1


def _are_rows(lines: bytes) -> bool:
    """No line belongs to a message.

    Either the line that says it is one is among them, or the last is one of those before it.
    Looking at each line takes longer than all else that is done about a row.
    """
    last = lines.rfind(b"\n", 0, -1) + 1
    if not (lines.startswith(b"{") and lines.startswith(b"{", last)):
        return False
    # Backwards, which is several times as fast.
    return lines.rfind(_SAYS) < 0 or _all_rows(lines)


def _all_rows(lines: bytes) -> bool:
    return lines.startswith(b"{") and lines.count(b"\n{") == lines.count(b"\n") - 1
