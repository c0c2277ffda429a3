"""ClickHouse's answer passed on while it comes, and what went wrong after it began found in it.

A statement that fails half-way has its message behind the rows sent so far, under status 200.
So the end of what came is held back until more comes, or until it proves to be a whole one.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import aiohttp

from plan2_sidecar.engines.clickhouse_errors import in_text
from plan2_sidecar.errors import ConnectionLost
from plan2_sidecar.query import Chunk

_ARROW_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_MESSAGE_BYTES: Final = 16_384
_PIECE_BYTES: Final = 65_536
_CUT: Final = "the engine's answer was cut short"


async def rows(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """JSONEachRow as it comes, in whole lines; raises Problem at the first that is no row."""
    held = bytearray()
    broken = False
    async for piece in _until_broken(pieces, held):
        if broken:
            # Behind a message nothing comes that matters.
            held += piece if len(held) < 2 * _PIECE_BYTES else b""
            continue
        held += piece
        if len(held) < _PIECE_BYTES:
            continue
        # The last whole line waits too: a message may stand right behind a row.
        end = held.rfind(b"\n", 0, max(held.rfind(b"\n"), 0)) + 1
        whole = bytes(held[:end])
        broken = bool(whole) and not _all_rows(whole)
        if whole and not broken:
            del held[:end]
            yield Chunk(whole, whole.count(b"\n"))
    rest = bytes(held)
    if rest and not (_all_rows(rest) and rest.endswith(b"}\n")):
        raise in_text(rest) or ConnectionLost(_CUT)
    if rest:
        yield Chunk(rest, rest.count(b"\n"))


async def arrow(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """An Arrow stream as it comes; raises Problem when it does not end as one."""
    held = bytearray()
    async for piece in _until_broken(pieces, held):
        held += piece
        if len(held) >= _PIECE_BYTES + _MESSAGE_BYTES:
            yield Chunk(bytes(held[:-_MESSAGE_BYTES]), 0)
            del held[:-_MESSAGE_BYTES]
    if held and not held.endswith(_ARROW_END):
        raise in_text(bytes(held)) or ConnectionLost(_CUT)
    if held:
        yield Chunk(bytes(held), 0)


async def _until_broken(pieces: AsyncIterator[bytes], held: bytearray) -> AsyncIterator[bytes]:
    """The pieces; a connection that breaks behind a message ends them."""
    try:
        async for piece in pieces:
            yield piece
    except aiohttp.ClientPayloadError:
        # Newer servers break it on purpose, so that nobody takes the answer for a whole one.
        if in_text(bytes(held[-_MESSAGE_BYTES:])) is None:
            raise


def _all_rows(lines: bytes) -> bool:
    return lines.startswith(b"{") and lines.count(b"\n{") == lines.count(b"\n") - 1
