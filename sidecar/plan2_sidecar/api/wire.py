"""Bodies of the API as types: requests are decoded strictly, answers encoded in one go."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from plan2_contract.engines import Engine
from plan2_sidecar.errors import InvalidRequest, MalformedJson
from plan2_sidecar.query import Params, Result, Text
from plan2_sidecar.routing import Operation, Route, Rung

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

DEFAULT_TIMEOUT_MS = 5000
LONGEST_TIMEOUT_MS = 60_000
DEFAULT_MAX_ROWS = 10_000
LONGEST_CACHE_MS = 31_536_000_000
_WHOLE = frozenset({int, str})
# A float has all of fifteen digits.
_LONG_NUMBER = re.compile(rb"\d[.\d]{15}|\d[eE]")

Milliseconds = Annotated[int, Meta(ge=1, le=LONGEST_TIMEOUT_MS)]
# One more is asked of the engine, some of which count in 32 bits.
Rows = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    pass


class CacheOptions(_Request, frozen=True):
    """How long an answer may be kept."""

    ttl_ms: Annotated[int, Meta(ge=1, le=LONGEST_CACHE_MS)]


class Options(_Request, frozen=True):
    """How to run a query. `cache` is for reads.

    `max_rows` None is DEFAULT_MAX_ROWS, or all of them in a stream.
    """

    timeout_ms: Milliseconds | None = None
    read_only: bool = False
    cache: CacheOptions | None = None
    max_rows: Rows | None = None


class QueryRequest(_Request, frozen=True):
    """The body of POST /api/v2/query."""

    query: Text
    params: Params | None = None
    target_database: str | None = None
    operation: Operation | None = None
    options: Options = Options()


class BatchRequest(_Request, frozen=True):
    """The body of POST /api/v2/batch."""

    queries: Annotated[list[QueryRequest], Meta(min_length=1, max_length=100)]


class V1Request(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /api/v1/query; unknown members are ignored, as they always were."""

    sql: str | None = None
    query: str | None = None
    params: list[Any] | None = None


class AnswerMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where an answer came from; `fallback_from` is the engine that should have given it."""

    database: Engine
    route: Rung
    cache: str = "off"
    degraded: bool = False
    fallback_from: Engine | UnsetType = UNSET
    attempts: int = 1
    took_us: int
    truncated: bool | UnsetType = UNSET


class QueryAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer of POST /api/v2/query."""

    data: Any
    row_count: int
    meta: AnswerMeta


class V1Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer of POST /api/v1/query."""

    rows: Any
    row_count: int
    fields: list[dict[str, str]]


R = TypeVar("R", bound=QueryRequest | BatchRequest | V1Request)


def _number(text: str) -> float | Decimal:
    """A float where it holds all the digits, else a Decimal, which engines write out whole."""
    number, exact = float(text), Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


def _may_hold_digits(asked: QueryRequest | V1Request) -> bool:
    params = asked.params
    if type(asked.query) is list or type(params) is dict:
        return True
    # Texts and integers have come whole.
    return params is not None and not _WHOLE.issuperset(map(type, params))


def _may_any_hold_digits(asked: BatchRequest) -> bool:
    return any(map(_may_hold_digits, asked.queries))


class _Exact(Generic[R]):
    """A decoder that looks twice at numbers only where an engine takes their digits as they are.

    A vector of 1536 numbers would cost milliseconds; it is in no params.
    """

    def __init__(self, kind: type[R], may_hold_digits: Callable[[R], bool]) -> None:
        self._quick = msgspec.json.Decoder(kind).decode
        self._exact = msgspec.json.Decoder(kind, float_hook=_number).decode
        self._may_hold_digits = may_hold_digits

    def decode(self, body: bytes) -> R:
        asked = self._quick(body)
        if self._may_hold_digits(asked) and _LONG_NUMBER.search(body):
            return self._exact(body)
        return asked


QUERY_REQUEST = _Exact(QueryRequest, _may_hold_digits)
BATCH_REQUEST = _Exact(BatchRequest, _may_any_hold_digits)
V1_REQUEST = _Exact(V1Request, _may_hold_digits)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_FIRST_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Decoder(Protocol[T_co]):
    """msgspec's, or ours."""

    def decode(self, body: bytes, /) -> T_co:
        """The body; raises what msgspec raises."""
        ...


def decode(decoder: Decoder[T], body: bytes) -> T:
    """The body; raises MalformedJson, or InvalidRequest which names the member."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(str(error) if body else "the body is empty") from None
    except RecursionError:
        raise MalformedJson("the body is nested too deeply") from None


def encode(value: Any) -> bytes:
    """Any answer as JSON; decimals keep all their digits."""
    return _ENCODER.encode(value)


def answer(
    result: Result,
    route: Route,
    *,
    attempts: int,
    took_us: int,
    cache: str = "off",
    degraded: bool = False,
) -> bytes:
    """The answer of POST /api/v2/query; a degraded one stands in for the engine's own."""
    meta = AnswerMeta(
        database=route.engine,
        route=route.rung,
        cache=cache,
        degraded=degraded,
        fallback_from=route.engine if degraded else UNSET,
        attempts=attempts,
        took_us=took_us,
        truncated=True if result.truncated else UNSET,
    )
    if result.extra:
        whole = {"data": result.data, "rowCount": result.row_count, **result.extra, "meta": meta}
        return _ENCODER.encode(whole)
    return _ENCODER.encode(QueryAnswer(data=result.data, row_count=result.row_count, meta=meta))


def v1_answer(result: Result) -> bytes:
    """The answer of POST /api/v1/query; `fields` are the columns, those of no rows too."""
    names = _columns(result.data) if result.columns is None else result.columns
    fields = [{"name": name} for name in names]
    return _ENCODER.encode(V1Answer(rows=result.data, row_count=result.row_count, fields=fields))


def _columns(data: Any) -> list[str]:
    """The members of the first row."""
    if isinstance(data, msgspec.Raw):
        rows = _ROWS.decode(data)
        return list(_FIRST_ROW.decode(rows[0])) if rows else []
    return list(data[0]) if data else []
