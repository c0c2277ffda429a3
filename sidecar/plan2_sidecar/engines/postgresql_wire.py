"""Prepared statements in PostgreSQL's protocol: what is sent for one, and what comes back. Pure.

Values travel as text, as in `postgresql_codecs`. Each statement ends with a Sync, so that what
is wrong with one says nothing of the next.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from plan2_sidecar.engines import postgresql_codecs as codecs

_TEXTS: Final = frozenset({"text", "varchar", "bpchar"})
_TEXT: Final = frozenset({str})
_NUMBER: Final = frozenset({str, int, float})
_BOOL: Final = frozenset({bool})

_NULL: Final = b"\xff\xff\xff\xff"
# Results as text; Execute for all rows; Sync.
_RUN: Final = b"\0\0" + b"E\0\0\0\t\0\0\0\0\0" + b"S\0\0\0\4"

# BindComplete and the first byte of a row; what follows it; and the end of an answer of one.
_ONE: Final = b"2\0\0\0\4D"
_ROW: Final = struct.Struct(">IHi")
_ROW_ENDS: Final = b"C\0\0\0\rSELECT 1\0Z\0\0\0\5I"
# The whole of an answer without rows.
_NONE: Final = b"2\0\0\0\4C\0\0\0\rSELECT 0\0Z\0\0\0\5I"
_MESSAGE: Final = struct.Struct(">cI")


class ProtocolBroken(Exception):
    """The server sent what no answer to such a statement has."""


# Rows of one column each; the SQLSTATE of an error, behind which rows mean nothing; and where the
# next answer begins.
Answer = tuple[list[bytes], str | None, int]


def accepted(types: tuple[Any, ...]) -> tuple[frozenset[type], ...] | None:
    """For each parameter what Python types travel as their text; None where one has no such.

    These are what asyncpg is taught to take, and no more.
    """
    found = [_accepted(each) for each in types]
    return None if None in found else tuple(kinds for kinds in found if kinds is not None)


def _accepted(parameter: Any) -> frozenset[type] | None:
    name = parameter.name if parameter.schema == "pg_catalog" else ""
    if name in _TEXTS:
        return _TEXT
    if name == "bool":
        return _BOOL
    return _NUMBER if codecs.is_text_of_numbers(name) else None


def parse(name: bytes, statement: str) -> bytes:
    """Prepare it; the server says nothing before the next Sync."""
    text = statement.encode()
    return b"P%b%b\0%b\0\0\0" % ((len(name) + len(text) + 8).to_bytes(4), name, text)


def close(name: bytes) -> bytes:
    """Forget it; the server says nothing before the next Sync."""
    return b"C%bS%b\0" % ((len(name) + 6).to_bytes(4), name)


def bound(name: bytes, parameters: int) -> bytes:
    """What stands before the values wherever it is run: to be given to `run`."""
    return b"\0%b\0\0\0%b" % (name, parameters.to_bytes(2))


def run(bound: bytes, values: list[Any], kinds: tuple[frozenset[type], ...]) -> bytes | None:
    """Run a prepared statement with so many values; None where one is not of its kind."""
    sent = bound
    for value, accepted in zip(values, kinds, strict=True):
        if type(value) in accepted:
            text = str(value).encode()
            sent += len(text).to_bytes(4) + text
        elif value is None:
            sent += _NULL
        else:
            return None
    return b"B%b%b%b" % ((len(sent) + 6).to_bytes(4), sent, _RUN)


def read(data: bytes, at: int) -> Answer | None:
    """The answer that begins there; None where it is not whole. Raises ProtocolBroken."""
    if data.startswith(_ONE, at) and at + 16 <= len(data):
        _, _, width = _ROW.unpack_from(data, at + 6)
        ends = at + 16 + width
        if data.startswith(_ROW_ENDS, ends):
            return [data[at + 16 : ends]], None, ends + len(_ROW_ENDS)
    if data.startswith(_NONE, at):
        return [], None, at + len(_NONE)
    return _read(data, at)


def _read(data: bytes, at: int) -> Answer | None:
    """`read`, message by message."""
    rows: list[bytes] = []
    error: str | None = None
    size = len(data)
    while at + 5 <= size:
        kind, length = _MESSAGE.unpack_from(data, at)
        stop = at + 1 + length
        if length < 4:
            raise ProtocolBroken(f"a message {kind!r} of {length} bytes")
        if stop > size:
            return None
        match kind:
            case b"Z":
                return rows, error, stop
            case b"D":
                field = data[at + 5 : stop]
                if field[:2] != b"\0\1" or int.from_bytes(field[2:6]) != len(field) - 6:
                    raise ProtocolBroken("a row that is not one value")
                rows.append(field[6:])
            case b"E":
                error = _sqlstate(data[at + 5 : stop])
            # Parsed, bound, closed, complete, empty, notices, parameters, notifications.
            case b"1" | b"2" | b"3" | b"C" | b"I" | b"N" | b"S" | b"A":
                pass
            case _:
                raise ProtocolBroken(f"a message {kind!r} where an answer was expected")
        at = stop
    return None


def _sqlstate(fields: bytes) -> str:
    for each in fields.split(b"\0"):
        if each.startswith(b"C"):
            return each[1:].decode("ascii", "replace")
    return ""
