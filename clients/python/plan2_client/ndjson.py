"""A stream's lines as rows: what arrives in pieces goes in, rows come out, and how it ended."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from plan2_client.errors import StreamCut, from_answer
from plan2_client.models import Meta, StreamEnd

Loads = Callable[[bytes], Any]


class Reader:
    """Feed it the body and a last line break, then ask `finish()`."""

    def __init__(self, loads: Loads = json.loads) -> None:
        self._loads = loads
        self._pending: list[bytes] = []
        self._held: Any = None

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The rows that are whole by now."""
        first, *more = piece.split(b"\n")
        self._pending.append(first)
        for start in more:
            line = b"".join(self._pending)
            self._pending = [start]
            yield from self._row(line)

    def finish(self) -> StreamEnd:
        """How it ended; raises what `$error` says, StreamCut without a last line."""
        if self._held is None:
            raise StreamCut("the rows ended in the middle")
        if "$error" in self._held:
            problem = self._held["$error"]
            raise from_answer(problem.get("status", 500), problem)
        end = self._held["$end"]
        return StreamEnd(row_count=end["rowCount"], meta=Meta.of(end["meta"]))

    def _row(self, line: bytes) -> Iterator[Any]:
        if not line.strip():
            return
        try:
            row = self._loads(line)
        except ValueError as error:
            raise StreamCut(f"a row is not JSON: {error}") from error
        if self._held is not None:
            # Something follows, so that was a row whose only column has such a name.
            yield self._held
            self._held = None
        if _is_last(row):
            self._held = row
        else:
            yield row


def _is_last(row: Any) -> bool:
    return isinstance(row, dict) and len(row) == 1 and ("$end" in row or "$error" in row)
