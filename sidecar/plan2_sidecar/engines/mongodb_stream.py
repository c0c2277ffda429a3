"""A cursor's documents as NDJSON: one batch in memory, the next fetched when it is wanted."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.query import Chunk

# Documents that the server sends at once, of whatever size: a batch ends at 16 MiB alone.
BATCH: Final = 100
_PIECE_CHARACTERS: Final = 64 * 1024


async def chunks(
    cursor: Any, max_rows: int | None, deadline: Deadline, encode: Callable[[Any], str]
) -> AsyncGenerator[Chunk, None]:
    """At most one row more than `max_rows`, so that the caller sees that there are more."""
    left = None if max_rows is None else max_rows + 1
    while left is None or left > 0:
        async with deadline.enforced():
            # With nothing in hand it fetches a batch, and takes no more than that has.
            found = await cursor.to_list(min(left or BATCH, BATCH))
        if not found:
            return
        left = None if left is None else left - len(found)
        lines, characters = list[str](), 0
        for each in found:
            lines.append(encode(each))
            characters += len(lines[-1])
            if characters > _PIECE_CHARACTERS:
                # Others get their turn while the caller takes it.
                yield _piece(lines)
                lines, characters = [], 0
        if lines:
            yield _piece(lines)


def _piece(lines: list[str]) -> Chunk:
    return Chunk(("\n".join(lines) + "\n").encode(), len(lines))
