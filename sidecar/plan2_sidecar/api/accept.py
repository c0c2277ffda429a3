"""The Accept header: the forms an answer may take, in the order the caller likes them."""

from collections.abc import Sequence

from aiohttp import hdrs, web

from plan2_sidecar.errors import NotAcceptable
from plan2_sidecar.query import Form


def forms(request: web.Request, offered: Sequence[Form] = (Form.JSON,)) -> list[Form]:
    """The offered forms the caller takes, best first; raises NotAcceptable when it takes none."""
    accept = ",".join(request.headers.getall(hdrs.ACCEPT, ()))
    taken = acceptable(accept, offered)
    if not taken:
        raise NotAcceptable(f"this answers {' or '.join(offered)}, not {accept}")
    return taken


def acceptable(accept: str, offered: Sequence[Form]) -> list[Form]:
    """As `forms`, of the header's text; of two liked the same, the one offered first."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    if not ranges:
        return list(offered)
    liked = [(_quality(form, ranges), form) for form in offered]
    liked.sort(key=lambda each: -each[0])
    return [form for quality, form in liked if quality > 0]


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (word.strip().lower() for word in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return name, 1.0
    return name, 1.0


def _quality(form: Form, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that fits says; 0 when none does."""
    for wanted in (form.value, f"{form.partition('/')[0]}/*", "*/*"):
        found = [quality for name, quality in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
