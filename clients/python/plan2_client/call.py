"""A call as a value: what to send, and how its answer reads. Nothing here reaches anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from plan2_client.errors import NotFound, from_answer
from plan2_client.models import Written, given

T = TypeVar("T")

LONGEST_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Answer:
    """What came back; `headers` by lower-case names, `document` None without a body."""

    status: int
    headers: Mapping[str, str]
    document: Any


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, and `read` for its answer below 400."""

    method: str
    path: str
    read: Callable[[Answer], T]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_ms: int | None = None
    absent: Callable[[], T] | None = None

    def result(self, answer: Answer) -> T:
        """The answer as this call's type; raises Plan2Error."""
        if answer.status < 400:
            return self.read(answer)
        error = from_answer(answer.status, answer.document)
        if self.absent is not None and isinstance(error, NotFound):
            return self.absent()
        raise error


def get(path: str, timeout_ms: int | None, read: Callable[[Answer], T]) -> Call[T]:
    """A read."""
    return Call(method="GET", path=path, timeout_ms=timeout_ms, read=read)


def get_or_none(
    path: str,
    timeout_ms: int | None,
    read: Callable[[Answer], T],
    headers: Mapping[str, str] | None = None,
) -> Call[T | None]:
    """A read of something that may not be there."""
    return Call(
        method="GET",
        path=path,
        headers=headers or {},
        timeout_ms=timeout_ms,
        read=read,
        absent=lambda: None,
    )


def post(path: str, body: Any, timeout_ms: int | None, read: Callable[[Answer], T]) -> Call[T]:
    """Something to be done, which sent twice is done twice."""
    return Call(method="POST", path=path, body=body, timeout_ms=timeout_ms, read=read)


def put(
    path: str,
    body: Any,
    timeout_ms: int | None,
    read: Callable[[Answer], T],
    headers: Mapping[str, str] | None = None,
) -> Call[T]:
    """Something to be kept under a name."""
    return Call(
        method="PUT",
        path=path,
        body=body,
        headers=headers or {},
        timeout_ms=timeout_ms,
        read=read,
    )


def delete(
    path: str, timeout_ms: int | None, headers: Mapping[str, str] | None = None
) -> Call[Written]:
    """Something that is gone afterwards."""
    return Call(
        method="DELETE", path=path, headers=headers or {}, timeout_ms=timeout_ms, read=written
    )


def segment(name: str) -> str:
    """A name as one segment of a path."""
    if not name:
        raise ValueError("the name is empty")
    if name in (".", ".."):
        # A path with a dot segment is another path.
        return name.replace(".", "%2E")
    return quote(name, safe="")


def with_query(path: str, **members: Any) -> str:
    """The path with the members that are not None."""
    members = given(**members)
    return f"{path}?{urlencode(members)}" if members else path


def written(answer: Answer) -> Written:
    """Where a write went."""
    return Written(**provenance(answer))


def provenance(answer: Answer) -> dict[str, Any]:
    """The members of `Written`, from the headers."""
    return {
        "source": answer.headers.get("plan2-source"),
        "degraded": answer.headers.get("plan2-degraded") == "true",
        "fallback_from": answer.headers.get("plan2-fallback-from"),
    }
