"""The five forms of a MongoDB query, decoded from Extended JSON and checked."""

import math
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
from bson import json_util
from bson.errors import BSONError

from plan2_sidecar.errors import InvalidRequest, QueryRejected

Document = dict[str, Any]

# Code that runs inside the server.
_REFUSED: Final = frozenset({"$where", "$function", "$accumulator"})


class _Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    collection: str


class Find(_Form, frozen=True, kw_only=True):
    """Documents that match."""

    filter: Document = {}
    projection: Document | list[str] | None = None
    sort: Document = {}
    limit: int = 0


class Aggregate(_Form, frozen=True, kw_only=True):
    """What a pipeline makes of them."""

    pipeline: list[Document]


class Insert(_Form, frozen=True, kw_only=True):
    """New documents."""

    documents: list[Document]


class Update(_Form, frozen=True, kw_only=True):
    """Operators, a pipeline, or a whole document in the first one's place."""

    filter: Document
    update: Document | list[Document]
    upsert: bool = False
    many: bool = False


class Delete(_Form, frozen=True, kw_only=True):
    """The first that matches, or all."""

    filter: Document
    delete: Literal["one", "many"]


Form = Find | Aggregate | Insert | Update | Delete

_KINDS: Final[tuple[tuple[str, type[Form]], ...]] = (
    ("pipeline", Aggregate),
    ("documents", Insert),
    ("update", Update),
    ("delete", Delete),
)


def decode(query: Any) -> Form:
    """The form with BSON's types in it; raises InvalidRequest and QueryRejected."""
    if not isinstance(query, dict):
        raise InvalidRequest("query must be an object for this engine")
    kind = next((kind for member, kind in _KINDS if member in query), Find)
    try:
        form: Form = msgspec.convert(query, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    if not form.collection or "\0" in form.collection or form.collection.startswith("$"):
        raise InvalidRequest("collection must be the name of a collection")
    if isinstance(form, Insert) and not form.documents:
        raise InvalidRequest("documents is empty")
    if isinstance(form, Find) and form.limit < 0:
        raise InvalidRequest("limit must not be negative")
    values = {name: getattr(form, name) for name in form.__struct_fields__}
    try:
        converted = {name: _bson(value) for name, value in values.items()}
    except (ValueError, TypeError, ArithmeticError, BSONError) as error:
        raise InvalidRequest(f"not Extended JSON: {error}") from None
    for name, value in values.items():
        # A whole filter, stage or document that was one of Extended JSON's wrappers.
        if not _alike(value, converted[name]):
            raise InvalidRequest(f"{name} must hold documents, not values of Extended JSON")
    if isinstance(form, Find):
        converted["sort"] = {name: _direction(name, way) for name, way in form.sort.items()}
    return kind(**converted)


def writes(form: Form) -> bool:
    """Whether it changes documents; `$out` and `$merge` do."""
    if isinstance(form, Aggregate):
        return any(not {"$out", "$merge"}.isdisjoint(stage) for stage in form.pipeline)
    return not isinstance(form, Find)


def _alike(given: Any, converted: Any) -> bool:
    if isinstance(given, list) and isinstance(converted, list):
        return all(map(_alike, given, converted))
    return not isinstance(given, dict) or isinstance(converted, dict)


def _direction(name: str, way: Any) -> Any:
    """1, -1, or `{"$meta": …}`; JSON may say 1 as 1.0."""
    if isinstance(way, dict) and "$meta" in way:
        return way
    if isinstance(way, bool) or way not in (1, -1):
        raise InvalidRequest(f"sort: {name} is neither 1 nor -1")
    return int(way)


def _double(value: Decimal) -> float:
    """As relaxed Extended JSON reads a number; `$numberDecimal` keeps the digits."""
    if math.isinf(number := float(value)):
        raise ValueError(f"{value} is beyond a double")
    return number


def _bson(value: Any) -> Any:
    """Extended JSON's wrappers replaced by BSON's types, from the inside out."""
    if isinstance(value, list):
        return [_bson(item) for item in value]
    if isinstance(value, Decimal):
        return _double(value)
    if not isinstance(value, dict):
        return value
    for name in value:
        if name in _REFUSED:
            raise QueryRejected(f"{name} is refused: no code is run inside the server")
    inner = {name: _bson(item) for name, item in value.items()}
    if "$regex" in inner and not inner.keys() <= {"$regex", "$options"}:
        return inner  # an operator beside others; the reader below would drop those
    return json_util.object_hook(inner, json_util.RELAXED_JSON_OPTIONS)
