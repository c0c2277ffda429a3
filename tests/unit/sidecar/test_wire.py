"""Bodies: decoded strictly, answered as the API says."""

import json
from decimal import Decimal

import msgspec
import pytest

from plan2_contract.engines import Engine
from plan2_sidecar.api import wire
from plan2_sidecar.errors import InvalidRequest, MalformedJson
from plan2_sidecar.query import Result
from plan2_sidecar.routing import Route, Rung

ROUTE = Route(Engine.POSTGRESQL, Rung.TARGET, "SELECT 1")


def test_a_whole_request_is_understood() -> None:
    asked = wire.decode(
        wire.QUERY_REQUEST,
        b'{"query": "SELECT $1", "params": [42], "targetDatabase": "postgresql",'
        b' "operation": "relational", "options": {"timeoutMs": 2000, "readOnly": true,'
        b' "cache": {"ttlMs": 5000}, "maxRows": 1000}}',
    )

    assert (asked.query, asked.params, asked.target_database) == ("SELECT $1", [42], "postgresql")
    assert (asked.options.timeout_ms, asked.options.read_only) == (2000, True)
    assert asked.options.max_rows == 1000


@pytest.mark.parametrize("digits", ["1.5", "0.1", "-0.0", "1e-7", "3.141592653589793", "1e5"])
def test_a_number_that_a_float_holds_is_a_float(digits: str) -> None:
    asked = wire.decode(wire.QUERY_REQUEST, f'{{"query": "x", "params": [{digits}]}}'.encode())

    assert isinstance(asked.params, list)
    assert type(asked.params[0]) is float
    assert asked.params[0] == float(digits)


@pytest.mark.parametrize(
    "digits", ["0.10000000000000000001", "12345678901234567890.5", "1.00000000000000000001E+30"]
)
@pytest.mark.parametrize("decoder", [wire.QUERY_REQUEST, wire.V1_REQUEST], ids=["v2", "v1"])
def test_a_number_beyond_a_float_keeps_its_digits(
    decoder: wire.Decoder[wire.QueryRequest | wire.V1Request], digits: str
) -> None:
    asked = wire.decode(decoder, f'{{"query": "x", "params": [[{digits}]]}}'.encode())

    assert asked.params == [[Decimal(digits)]]


def test_a_redis_command_keeps_the_digits_of_its_numbers() -> None:
    asked = wire.decode(wire.QUERY_REQUEST, b'{"query": ["SET", "k", 0.10000000000000000001]}')

    assert asked.query == ["SET", "k", Decimal("0.10000000000000000001")]


def test_only_the_query_is_required() -> None:
    asked = wire.decode(wire.QUERY_REQUEST, b'{"query": ["GET", "k"]}')

    assert asked.options == wire.Options(max_rows=None)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"query": "x", "targetDb": "y"}', "targetDb"),
        (b'{"query": "x", "options": {"timeout": 1}}', "timeout"),
        (b'{"query": 1}', "query"),
        (b"{}", "query"),
        (b'{"query": "x", "options": {"timeoutMs": 0}}', "timeoutMs"),
        (b'{"query": "x", "options": {"timeoutMs": 60001}}', "timeoutMs"),
        (b'{"query": "x", "options": {"maxRows": 0}}', "maxRows"),
        (b'{"query": "x", "operation": "guess"}', "operation"),
        (b'{"query": "x", "params": "y"}', "params"),
        (b"[]", "object"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_what_does_not_fit_is_named(body: bytes, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        wire.decode(wire.QUERY_REQUEST, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"query": "x"', b"query", b'{"query": "\xff"}', b'{"query": ' + b"[" * 100_000],
    ids=["empty", "brace", "cut", "word", "not utf-8", "deep"],
)
def test_what_is_not_json_is_said_to_be_no_json(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        wire.decode(wire.QUERY_REQUEST, body)


def test_an_answer_says_where_it_came_from() -> None:
    result = Result(data=[{"id": 1}], row_count=1)

    whole = json.loads(wire.answer(result, ROUTE, attempts=1, took_us=7))

    assert whole == {
        "data": [{"id": 1}],
        "rowCount": 1,
        "meta": {
            "database": "postgresql",
            "route": "target",
            "cache": "off",
            "degraded": False,
            "attempts": 1,
            "tookUs": 7,
        },
    }


def test_bytes_from_an_engine_are_passed_through() -> None:
    result = Result(data=msgspec.Raw(b'[ {"n":12345678901234567890.10} ]'), row_count=1)

    assert b'"data":[ {"n":12345678901234567890.10} ],' in wire.answer(
        result, ROUTE, attempts=1, took_us=7
    )


def test_decimals_keep_all_their_digits() -> None:
    result = Result(data=[Decimal("12345678901234567890.10")], row_count=1)

    assert b"[12345678901234567890.10]" in wire.answer(result, ROUTE, attempts=1, took_us=7)


def test_rows_left_out_and_further_members_are_said() -> None:
    result = Result(data=[], row_count=1, truncated=True, extra={"upsertedId": "x"})

    whole = json.loads(wire.answer(result, ROUTE, attempts=1, took_us=7))

    assert whole["upsertedId"] == "x"
    assert whole["meta"]["truncated"] is True


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        ([{"a": 1, "b": 2}], [{"name": "a"}, {"name": "b"}]),
        (msgspec.Raw(b'[{"a": 1, "b": 2}]'), [{"name": "a"}, {"name": "b"}]),
        (msgspec.Raw(b"[]"), []),
        ([], []),
    ],
    ids=["rows", "bytes", "no bytes", "no rows"],
)
def test_v1_answers_rows_and_fields(data: object, fields: list[dict[str, str]]) -> None:
    whole = json.loads(wire.v1_answer(Result(data=data, row_count=1)))

    assert whole["fields"] == fields
    assert set(whole) == {"rows", "rowCount", "fields"}
