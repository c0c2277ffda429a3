"""What is asked of an engine and what it answers: the shapes every engine module shares."""

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

Text = str | dict[str, Any] | list[Any]
Params = list[Any] | dict[str, Any]


class Form(StrEnum):
    """What an answer's bytes can be."""

    JSON = "application/json"
    NDJSON = "application/x-ndjson"
    ARROW = "application/vnd.apache.arrow.stream"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One statement for one engine, in that engine's own language.

    `query` is text, a Redis command as a list, or an object (MongoDB, Weaviate). `max_rows`
    None is "all of them".
    """

    query: Text
    params: Params | None = None
    read_only: bool = False
    max_rows: int | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came back.

    `data` is anything msgspec encodes to JSON, or `msgspec.Raw` with JSON bytes that are passed
    through. `row_count` is rows returned, else rows affected. `truncated`: `max_rows` left some
    out. `extra` holds further members of the answer, by their wire names (`upsertedId`).
    `columns` are the names of a row's columns where the engine tells them of no rows too.
    """

    data: Any
    row_count: int
    truncated: bool = False
    extra: dict[str, Any] | None = None
    columns: tuple[str, ...] | None = None


class Chunk(NamedTuple):
    """A piece of a stream: as NDJSON whole lines, each with its line feed.

    `data` may come in parts, which are what they are until the next piece is asked for. `rows`
    counts the lines, or what a statement without rows changed; in Arrow it is 0.
    """

    data: bytes | list[memoryview]
    rows: int

    def whole(self) -> bytes:
        """`data` in one, to be kept."""
        return self.data if isinstance(self.data, bytes) else b"".join(self.data)
