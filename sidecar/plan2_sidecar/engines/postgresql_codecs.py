"""PostgreSQL's values as JSON: in, whatever the type's own text form takes; out, as `to_json`.

Types are taught to a connection when a statement first needs them, because each costs a round
trip. Their text form travels, so that the server parses "1.50", "tomorrow" and "1 day".
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import asyncpg
import msgspec

_OFFSET: Final = re.compile(r"([+-]\d\d)$")
_NUMBER: Final = re.compile(r"-?\d")
JSON: Final = msgspec.json.Encoder(decimal_format="number")

Codec = tuple[Callable[[Any], str], Callable[[str], Any]]
# A union would be made anew for each value.
_NUMBERS: Final = (int, float, decimal.Decimal)
_PLAIN: Final = (str, int, float, msgspec.Raw)
_LISTS: Final = (list, tuple, set, frozenset)
# Known to every connection from its start: answers come as this type. Its binary form is its text.
RAW_JSON: Final = "json"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        raise TypeError(f"a string or a number is expected, not {type(value).__name__}")
    return str(value)


def _binary(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and list(value) == ["$base64"] and isinstance(value["$base64"], str):
        try:
            return "\\x" + base64.b64decode(value["$base64"], validate=True).hex()
        except binascii.Error as error:
            raise TypeError(f"$base64: {error}") from None
    raise TypeError('a string in PostgreSQL\'s form or {"$base64": …} is expected')


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else JSON.encode(value).decode()


def _json_bytes(value: Any) -> bytes:
    return _json_text(value).encode()


def _number(text: str) -> Any:
    """A JSON number with all the digits it came with; NaN and Infinity are strings."""
    return msgspec.Raw(text.encode()) if _NUMBER.match(text) and text[-1] != "y" else text


def _timestamp(text: str) -> str:
    return text.replace(" ", "T", 1)


def _timestamp_tz(text: str) -> str:
    return _OFFSET.sub(r"\1:00", text.replace(" ", "T", 1))


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _same(text: str) -> str:
    return text


CODECS: Final[Mapping[str, Codec]] = MappingProxyType(
    {
        "int2": (_text, int),
        "int4": (_text, int),
        "int8": (_text, int),
        "oid": (_text, int),
        "float4": (_text, _number),
        "float8": (_text, _number),
        "numeric": (_text, _number),
        "money": (_text, _same),
        "date": (_text, _same),
        "time": (_text, _same),
        "timetz": (_text, _same),
        "timestamp": (_text, _timestamp),
        "timestamptz": (_text, _timestamp_tz),
        "interval": (_text, _same),
        "bytea": (_binary, _same),
        "jsonb": (_json_text, _raw),
        "uuid": (_text, _same),
        "inet": (_text, _same),
        "cidr": (_text, _same),
        "macaddr": (_text, _same),
        "bit": (_text, _same),
        "varbit": (_text, _same),
        "point": (_text, _same),
        "xml": (_text, _same),
        "tsvector": (_text, _same),
        "tsquery": (_text, _same),
    }
)


def is_text_of_numbers(name: str) -> bool:
    """Whether a value of that type is a string or a number, and its text is what travels."""
    codec = CODECS.get(name)
    return codec is not None and codec[0] is _text


def untaught(types: Iterable[asyncpg.Type], known: set[str]) -> set[str]:
    """Which of CODECS the connection still needs for values of these types."""
    wanted: set[str] = set()
    for each in types:
        name = each.name.removesuffix("[]").rpartition(".")[2]
        if name in CODECS:
            wanted.add(name)
        elif each.kind == "domain":
            wanted.update(CODECS)  # it may be made of any of them
    return wanted - known


async def teach(connection: asyncpg.Connection[Any], names: Iterable[str]) -> None:
    """Set the codecs of these names; statements prepared before keep the old ones."""
    for name in names:
        encode, decode = CODECS[name]
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=encode, decoder=decode, format="text"
        )


async def teach_json(connection: asyncpg.Connection[Any]) -> None:
    """Have columns of type json arrive as msgspec.Raw; costs no round trip."""
    await connection.set_type_codec(
        RAW_JSON, schema="pg_catalog", encoder=_json_bytes, decoder=msgspec.Raw, format="binary"
    )


def plain(value: Any) -> Any:
    """A decoded value as JSON types: records, ranges and the like in `to_json`'s form."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, asyncpg.Record):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, _LISTS):
        return [plain(item) for item in value]
    if isinstance(value, asyncpg.Range):
        return _range(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return _number(str(value))
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return str(value)


def _range(value: asyncpg.Range[Any]) -> str:
    if value.isempty:
        return "empty"
    lower = "" if value.lower is None else _bound(plain(value.lower))
    upper = "" if value.upper is None else _bound(plain(value.upper))
    left = "[" if value.lower_inc else "("
    right = "]" if value.upper_inc else ")"
    return f"{left}{lower},{upper}{right}"


def _bound(value: Any) -> str:
    text = bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)
    return f'"{text.replace("T", " ")}"' if ":" in text else text
