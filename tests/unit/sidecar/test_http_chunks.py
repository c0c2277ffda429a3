"""Chunks are cut out of an answer wherever it is torn apart, and all else is left to aiohttp."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan2_sidecar.engines.http_chunks import Chunks, Part

HEAD = b"HTTP/1.1 200 OK\r\nX-Name: value\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def read(pieces: list[bytes]) -> tuple[bytes, bytes, bool]:
    """What was cut out, what was left to aiohttp, and whether all that follows is."""
    chunks = Chunks()
    cut = left = b""
    for piece in pieces:
        if chunks.over:
            left += piece
        elif chunks.headed:
            around = bytearray(b"before" + piece + b"after")
            left += chunks.feed(around, 6, 6 + len(piece))
        else:
            left += chunks.head(piece)
        cut += b"".join(part.view() for part in chunks.parts)
        chunks.parts = []
    return cut, left, chunks.over


BODY = chunk(b"a") + chunk(b"0\r\n\r\n" * 5) + chunk(bytes(300))
CONTENT = b"a" + b"0\r\n\r\n" * 5 + bytes(300)


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["alone", "followed"])
def test_an_answer_torn_at_any_byte_is_the_same(after: bytes) -> None:
    wire = HEAD + BODY + END + after

    for at in range(1, len(wire)):
        assert read([wire[:at], wire[at:]]) == (CONTENT, HEAD + END + after, True)


def test_an_answer_that_comes_byte_by_byte_is_the_same() -> None:
    wire = HEAD + BODY + END

    assert read([wire[at : at + 1] for at in range(len(wire))]) == (CONTENT, HEAD + END, True)


@settings(derandomize=True, deadline=None)
@given(sizes=st.lists(st.integers(1, 2000), max_size=20), piece=st.integers(1, 5000))
def test_chunks_of_any_size_are_put_together(sizes: list[int], piece: int) -> None:
    wire = HEAD + b"".join(chunk(b"x" * size) for size in sizes) + END

    pieces = [wire[at : at + piece] for at in range(0, len(wire), piece)]

    assert read(pieces) == (b"x" * sum(sizes), HEAD + END, True)


@pytest.mark.parametrize(
    "odd",
    [
        b"5;name=value\r\nhello\r\n",
        b"-5\r\n",
        b"123456789\r\n",
        b"\r\n",
        b"0\r\nTrailer: x\r\n\r\n",
    ],
    ids=["extension", "negative", "huge", "empty", "trailer"],
)
@pytest.mark.parametrize("before", [b"", BODY], ids=["first", "later"])
def test_what_is_no_plain_chunk_is_left_to_aiohttp(before: bytes, odd: bytes) -> None:
    cut, left, over = read([HEAD + before, odd])

    assert (cut, left, over) == (CONTENT if before else b"", HEAD + odd, True)


def test_a_chunk_longer_than_it_said_is_no_chunk_for_aiohttp_either() -> None:
    cut, left, over = read([HEAD + b"1\r\nab\r\n" + END])

    assert (cut, over) == (b"a", True)
    assert left.removeprefix(HEAD).startswith(b"!")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
    ids=["failed", "interim", "old", "length", "none", "coded", "both", "twice", "long"],
)
def test_another_kind_of_answer_is_left_to_aiohttp(head: bytes) -> None:
    assert read([head, b"1\r\na\r\n"]) == (b"", head + b"1\r\na\r\n", True)


def test_names_and_codings_are_matched_in_any_case() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding:Chunked\r\n\r\n"

    assert read([head + chunk(b"row") + END]) == (b"row", head + END, True)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@given(
    lines=st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([1, 10, 1000])), min_size=1, max_size=20
    ),
    before=st.integers(0, 50),
    after=st.integers(0, 50),
)
@settings(max_examples=200, deadline=None)
def test_lines_are_counted_however_long_they_are(
    kind: type[bytes | bytearray], lines: list[tuple[int, int]], before: int, after: int
) -> None:
    inner = b"".join((b"x" * length + b"\n") * count for length, count in lines)

    part = Part(kind(b"\n" * before + inner + b"\n" * after), before, before + len(inner))

    assert part.lines() == sum(count for _, count in lines)
