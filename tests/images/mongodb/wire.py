"""MongoDB's wire protocol: OP_MSG both ways, and OP_QUERY for a client's first hello."""

import asyncio
import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bson

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
MAX_MESSAGE_BYTES = 48_000_000
MORE_TO_COME = 2
_HEADER = struct.Struct("<iiii")
_CHECKSUM_PRESENT = 1
_numbers = itertools.count(1)


class Malformed(Exception):
    """Not a message this front can read; the connection ends."""


@dataclass(frozen=True)
class Message:
    """One request. `raw` is the whole of it, header included; `more` expects no answer."""

    number: int
    opcode: int
    raw: bytes
    body: Mapping[str, Any]
    database: str
    more: bool

    @property
    def command(self) -> str:
        return next(iter(self.body), "")

    def reply(self, document: Mapping[str, Any]) -> bytes:
        """The answer in the form that the request came in."""
        encoded = bson.encode(document)
        if self.opcode == OP_QUERY:
            payload = struct.pack("<iqii", 8, 0, 0, 1) + encoded
            return _framed(OP_REPLY, self.number, payload)
        return _framed(OP_MSG, self.number, struct.pack("<ib", 0, 0) + encoded)


def request(body: Mapping[str, Any]) -> bytes:
    """A command of the front's own."""
    return _framed(OP_MSG, 0, struct.pack("<ib", 0, 0) + bson.encode(body))


def _framed(opcode: int, answers: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) + 16, next(_numbers), answers, opcode) + payload


async def read_raw(reader: asyncio.StreamReader) -> bytes:
    """One whole message; IncompleteReadError at the stream's end."""
    head = await reader.readexactly(16)
    length = _HEADER.unpack(head)[0]
    if not 16 <= length <= MAX_MESSAGE_BYTES + 16384:
        raise Malformed(f"message of {length} bytes")
    return head + await reader.readexactly(length - 16)


def parse(raw: bytes) -> Message:
    """Only the command document is decoded, not the documents that travel beside it."""
    _, number, _, opcode = _HEADER.unpack_from(raw)
    try:
        if opcode == OP_MSG:
            flags = struct.unpack_from("<I", raw, 16)[0]
            body = bson.decode(_command_section(raw, flags))
            return Message(
                number, opcode, raw, body, str(body.get("$db", "")), bool(flags & MORE_TO_COME)
            )
        if opcode == OP_QUERY:
            end = raw.index(b"\0", 20)
            collection = raw[20:end].decode()
            body = bson.decode(raw[end + 9 :])
            return Message(number, opcode, raw, body, collection.split(".")[0], False)
    except (bson.InvalidBSON, struct.error, ValueError, IndexError) as error:
        raise Malformed(str(error)) from error
    raise Malformed(f"opcode {opcode}")


def answer(raw: bytes) -> dict[str, Any]:
    """The document of an OP_MSG answer."""
    return bson.decode(_command_section(raw, 0))


def with_body(raw: bytes, body: Mapping[str, Any]) -> bytes:
    """The same OP_MSG with another command document; what travels beside it stays."""
    flags = struct.unpack_from("<I", raw, 16)[0]
    kept, at, end = b"", 20, len(raw) - (4 if flags & _CHECKSUM_PRESENT else 0)
    while at < end:
        kind, size = raw[at], struct.unpack_from("<i", raw, at + 1)[0]
        if kind != 0:
            kept += raw[at : at + 1 + size]
        at += 1 + size
    payload = struct.pack("<I", flags & ~_CHECKSUM_PRESENT) + b"\0" + bson.encode(body) + kept
    number, answers = struct.unpack_from("<ii", raw, 4)
    return _HEADER.pack(len(payload) + 16, number, answers, OP_MSG) + payload


def _command_section(raw: bytes, flags: int) -> bytes:
    at, end = 20, len(raw) - (4 if flags & _CHECKSUM_PRESENT else 0)
    while at < end:
        kind = raw[at]
        size = struct.unpack_from("<i", raw, at + 1)[0]
        if kind == 0:
            return raw[at + 1 : at + 1 + size]
        at += 1 + size
    raise Malformed("no command section")
