"""The client of the streams: reads one answer to its end and counts its rows.

    reader.py URL BODY [FILE]

FILE gets the rows, without the line that ends a stream. Prints one object of JSON: status,
bytes, rows, seconds, first_seconds (until the first piece) and the last line.
"""

import json
import sys
import time
from pathlib import Path

import aiohttp
import uvloop

HEADERS = {"Accept": "application/x-ndjson", "Content-Type": "application/json"}


async def read(url: str, body: str, kept: list[bytes] | None) -> dict[str, object]:
    """The pieces are put into `kept` where there is one."""
    size, lines, tail, first = 0, 0, b"", 0.0
    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        async with session.post(url, data=body.encode(), headers=HEADERS) as answer:
            async for piece in answer.content.iter_any():
                first = first or time.perf_counter() - started
                size += len(piece)
                lines += piece.count(b"\n")
                tail = (tail + piece if len(piece) < 1000 else piece)[-1000:]
                if kept is not None:
                    kept.append(piece)
        seconds = time.perf_counter() - started
    last = tail.splitlines()[-1].decode(errors="replace") if tail else ""
    return {
        "status": answer.status,
        "bytes": size,
        "rows": lines,
        "seconds": seconds,
        "first_seconds": first,
        "last": last,
    }


def main() -> None:
    url, body, *file = sys.argv[1:]
    kept: list[bytes] | None = [] if file else None
    said = uvloop.run(read(url, body, kept))
    if kept:
        content = b"".join(kept)
        Path(file[0]).write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])
    print(json.dumps(said))


if __name__ == "__main__":
    main()
