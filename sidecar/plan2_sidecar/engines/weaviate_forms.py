"""The object forms of a Weaviate query, checked, and a search written as GraphQL.

Names are checked against Weaviate's own rules and values are encoded, so that nothing a caller
sends can end one and begin another.
"""

import re
from typing import Any, Final

import msgspec

from plan2_sidecar.errors import InvalidRequest

_COLLECTION: Final = re.compile(r"[A-Z][_0-9A-Za-z]{0,254}")
_NAME: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,230}")
_ENUMS: Final = frozenset({"operator", "fusionType", "type", "searchOperator"})
_ENUM: Final = re.compile(r"[A-Za-z_]{1,64}")
_TEXT: Final = msgspec.json.Encoder(decimal_format="number")
_SEARCHES: Final = ("near_vector", "near_text", "bm25", "hybrid")


class _Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    collection: str


class Search(_Form, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """At most one of the four kinds; none lists objects."""

    near_vector: list[float] | dict[str, Any] | None = None
    near_text: dict[str, Any] | None = None
    bm25: dict[str, Any] | None = None
    hybrid: dict[str, Any] | None = None
    limit: int | None = None
    properties: list[str] | None = None
    where: dict[str, Any] | None = None
    vector: bool = False


class Insert(_Form, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Objects: `{properties, id?, vector?, vectors?}`, or the properties themselves."""

    objects: list[dict[str, Any]]


def decode(query: Any) -> Search | Insert:
    """The form, its collection as Weaviate spells it; raises InvalidRequest."""
    if not isinstance(query, dict):
        raise InvalidRequest("query must be GraphQL text or an object for this engine")
    kind: type[Search | Insert] = Insert if "objects" in query else Search
    try:
        form: Search | Insert = msgspec.convert(query, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    # Weaviate itself capitalizes the first letter.
    collection = form.collection[:1].upper() + form.collection[1:]
    if not _COLLECTION.fullmatch(collection):
        raise InvalidRequest("collection is not a name that Weaviate allows")
    if isinstance(form, Search):
        if sum(getattr(form, name) is not None for name in _SEARCHES) > 1:
            raise InvalidRequest("one search takes one of nearVector, nearText, bm25 and hybrid")
        for name in form.properties or []:
            _checked(name)
    elif not form.objects:
        raise InvalidRequest("objects is empty")
    return msgspec.structs.replace(form, collection=collection)


def additional(form: Search) -> list[str]:
    """What is asked for beside the properties."""
    wanted = ["id"]
    if form.near_vector is not None or form.near_text is not None:
        wanted.append("distance")
    if form.bm25 is not None or form.hybrid is not None:
        wanted.append("score")
    return [*wanted, "vector"] if form.vector else wanted


def graphql(form: Search, properties: list[str], limit: int | None) -> str:
    """The search as GraphQL."""
    near = form.near_vector
    arguments = {
        "nearVector": {"vector": near} if isinstance(near, list) else near,
        "nearText": form.near_text,
        "bm25": form.bm25,
        "hybrid": form.hybrid,
        "where": form.where,
        "limit": limit,
    }
    given = ", ".join(
        f"{name}: {_literal(value)}" for name, value in arguments.items() if value is not None
    )
    fields = " ".join([*properties, f"_additional {{ {' '.join(additional(form))} }}"])
    return f"{{ Get {{ {form.collection}{f'({given})' if given else ''} {{ {fields} }} }} }}"


def wire_objects(form: Insert) -> list[dict[str, Any]]:
    """The objects as the batch call takes them."""
    return [{"class": form.collection, **_wire(each)} for each in form.objects]


def _wire(given: dict[str, Any]) -> dict[str, Any]:
    reserved: dict[str, Any] = {
        name: given[name] for name in ("id", "vector", "vectors") if name in given
    }
    rest = {name: value for name, value in given.items() if name not in reserved}
    properties = rest.get("properties")
    if isinstance(properties, dict):
        if len(rest) > 1:
            others = ", ".join(sorted(rest.keys() - {"properties"}))
            raise InvalidRequest(f"beside properties, an object has no {others}")
        rest = properties
    return {**reserved, "properties": rest}


def _literal(value: Any, name: str = "") -> str:
    """A JSON value in GraphQL's spelling: names bare, and the words of an enum too."""
    if isinstance(value, dict):
        pairs = (f"{_checked(key)}: {_literal(item, key)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if name in _ENUMS and isinstance(value, str):
        if not _ENUM.fullmatch(value):
            raise InvalidRequest(f"{name} must be a word")
        return value
    return _TEXT.encode(value).decode()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} is not a name that Weaviate allows")
    return name
