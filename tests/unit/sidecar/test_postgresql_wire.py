"""Statements in PostgreSQL's protocol: message by message, and answers cut anywhere."""

import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan2_sidecar.engines import postgresql_wire as wire


def message(kind: bytes, content: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(content) + 4) + content


def row(*columns: bytes | None) -> bytes:
    fields = [
        struct.pack(">i", -1) if each is None else struct.pack(">i", len(each)) + each
        for each in columns
    ]
    return message(b"D", struct.pack(">H", len(columns)) + b"".join(fields))


READY = message(b"Z", b"I")
NOTICE = message(b"N", b"SNOTICE\0C00000\0Mnever mind\0\0")


def answer(rows: list[bytes], *, before: bytes = b"") -> bytes:
    complete = message(b"C", b"SELECT %d\0" % len(rows))
    return before + message(b"2") + b"".join(map(row, rows)) + complete + READY


def refusal(sqlstate: str) -> bytes:
    return message(b"E", b"SERROR\0C%b\0Mno\0\0" % sqlstate.encode()) + READY


def test_what_is_sent_is_what_the_protocol_has() -> None:
    kinds = (frozenset({int}), frozenset({str}), frozenset({bool}))
    values = struct.pack(">i", 1) + b"7" + struct.pack(">i", -1) + struct.pack(">i", 4) + b"True"

    sent = wire.run(wire.bound(b"s1", 3), [7, None, True], kinds)

    bind = message(b"B", b"\0s1\0\0\0\0\3" + values + b"\0\0")
    assert sent == bind + message(b"E", b"\0" + bytes(4)) + message(b"S")
    assert wire.parse(b"s1", "SELECT 'ü'") == message(b"P", "s1\0SELECT 'ü'\0\0\0".encode())
    assert wire.close(b"s1") == message(b"C", b"Ss1\0")


@dataclass(frozen=True)
class Type:
    """As asyncpg describes one."""

    name: str
    schema: str = "pg_catalog"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("int4", 7, b"7"),
        ("int8", "7", b"7"),
        ("numeric", 1.5, b"1.5"),
        ("timestamptz", "2026-12-01", b"2026-12-01"),
        ("uuid", "x", b"x"),
        ("text", "ü", "ü".encode()),
        ("bool", False, b"False"),
        ("int4", True, None),
        ("text", 7, None),
        ("bool", "true", None),
        ("bool", 1, None),
        ("int4", [7], None),
        ("text", {"$base64": "AA=="}, None),
    ],
)
def test_a_value_travels_where_it_is_of_its_parameters_kind(
    name: str, value: Any, text: bytes | None
) -> None:
    kinds = wire.accepted((Type(name),))
    assert kinds is not None

    sent = wire.run(wire.bound(b"s", 1), [value], kinds)

    expected = None if text is None else struct.pack(">i", len(text)) + text + b"\0\0E"
    assert (expected is None) is (sent is None)
    assert expected is None or expected in (sent or b"")


@pytest.mark.parametrize(
    "strange",
    [Type("bytea"), Type("jsonb"), Type("int4[]"), Type("int4", "public"), Type("mood", "public")],
    ids=str,
)
def test_a_parameter_of_another_type_keeps_the_statement_out(strange: Type) -> None:
    assert wire.accepted((Type("int4"), strange)) is None


answers = st.one_of(
    st.lists(st.binary(max_size=40), max_size=3).map(lambda rows: (answer(rows), rows, None)),
    st.lists(st.binary(max_size=40), max_size=2).map(
        lambda rows: (answer(rows, before=message(b"1") + NOTICE), rows, None)
    ),
    st.sampled_from(["22012", "25006"]).map(lambda code: (refusal(code), None, code)),
)


@given(st.lists(answers, min_size=1, max_size=4))
def test_answers_are_read_once_they_are_whole(
    sent: list[tuple[bytes, list[bytes] | None, str | None]],
) -> None:
    data = b"".join(each[0] for each in sent)
    at = 0
    for content, rows, error in sent:
        stop = at + len(content)
        assert all(wire.read(data[:cut], at) is None for cut in range(at, stop))
        found = wire.read(data, at)
        assert found is not None
        assert found[1:] == (error, stop)
        assert error is not None or found[0] == rows
        at = stop


@pytest.mark.parametrize(
    "content",
    [
        message(b"2") + row(b"a", b"b"),
        message(b"2") + row(None),
        message(b"2") + row(),
        message(b"2") + message(b"W", bytes(4)),
        b"Z" + struct.pack(">I", 3),
    ],
    ids=["two columns", "null", "no column", "copy", "too short"],
)
def test_what_no_such_statement_answers_is_not_read(content: bytes) -> None:
    with pytest.raises(wire.ProtocolBroken):
        wire.read(content, 0)
