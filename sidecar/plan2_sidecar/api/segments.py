"""What several resources read of a request alike: names in the path, values as they came, pages."""

import base64
import binascii
from typing import Annotated, Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web
from msgspec import Meta

from plan2_sidecar.errors import InvalidRequest, MalformedJson

LONGEST_NAME_BYTES: Final = 512
LONGEST_TTL_SECONDS: Final = 31_536_000
LARGEST_PAGE: Final = 1000

Ttl = Annotated[int, Meta(ge=1, le=LONGEST_TTL_SECONDS)]


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query string of every list."""

    limit: Annotated[int, Meta(ge=1, le=LARGEST_PAGE)] = 100
    cursor: str | None = None


def segment(request: web.Request, name: str) -> str:
    """The part of the path that is called `name`, percent-decoded; raises InvalidRequest."""
    value = request.match_info[name]
    if not decodes(request, value):
        raise InvalidRequest(f"{{{name}}} is not UTF-8")
    return checked(value, f"{{{name}}}")


def decodes(request: web.Request, value: str) -> bool:
    """Whether `value`, a part of the path, is what was sent, percent-decoded.

    What is not UTF-8 is left encoded by aiohttp, and would be taken for another name.
    """
    if "%" not in value:
        return True
    try:
        unquote_to_bytes(request.rel_url.raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True


def checked(value: str, name: str) -> str:
    """`value`, when every engine can hold it as a name; raises InvalidRequest."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is not UTF-8") from None
    if not 1 <= size <= LONGEST_NAME_BYTES:
        raise InvalidRequest(f"{name} is {size} bytes, not 1 to {LONGEST_NAME_BYTES}")
    if "\0" in value:
        raise InvalidRequest(f"{name} holds a NUL character")
    return value


def json_bytes(value: msgspec.Raw) -> bytes:
    """A value of the body as it was written; raises MalformedJson where it is not UTF-8."""
    content = bytes(value)
    if not content.isascii():
        json_text(value)
    return content


def json_text(value: msgspec.Raw) -> str:
    """A value of the body as it was written; raises MalformedJson where it is not UTF-8."""
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(str(error)) from None


def raw(text: str) -> msgspec.Raw:
    """JSON that is passed through as it is."""
    return msgspec.Raw(text.encode())


def cursor(*values: Any) -> str:
    """Where the next page begins, for callers to send back as it is."""
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).rstrip(b"=").decode()


def position(cursor: str, kind: Any) -> Any:
    """What `cursor()` was given, a tuple of type `kind`; raises InvalidRequest."""
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        return msgspec.json.decode(packed, type=kind)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvalidRequest("cursor is none that this call gave out") from None
