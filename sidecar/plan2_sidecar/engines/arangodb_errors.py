"""ArangoDB's errors in the sidecar's words: errorNum → ours, then the HTTP status."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from plan2_sidecar.engines.http import Reply
from plan2_sidecar.errors import (
    Conflict,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    ParameterMismatch,
    PermissionDenied,
    Problem,
    QueryRejected,
    ReadOnly,
    StoreFull,
)

NUMBERS: Final[Mapping[int, type[Problem]]] = MappingProxyType(
    {
        11: PermissionDenied,  # forbidden
        18: Conflict,  # lock timeout
        28: ReadOnly,  # forbidden in read-only mode
        29: Conflict,  # deadlock
        30: EngineUnavailable,  # shutdown in progress
        32: QueryRejected,  # more than memoryLimit
        1004: ReadOnly,
        1104: StoreFull,  # file system full
        1200: Conflict,  # write-write
        1210: Conflict,  # unique
        1228: EngineUnavailable,  # our database is not there yet
        1429: EngineUnavailable,
        1495: EngineUnavailable,  # the leader is elsewhere
        1496: EngineUnavailable,
        1500: DeadlineExceeded,  # killed: by maxRuntime, or by us
        1550: ParameterMismatch,
        1551: ParameterMismatch,  # a bind parameter is missing
        1552: ParameterMismatch,  # one is not declared
        1553: ParameterMismatch,  # one has the wrong type
        21003: EngineUnavailable,  # the queue is full
        21004: EngineUnavailable,  # it would wait too long
    }
)
_RETRYABLE: Final = frozenset({18, 29, 1200})
_STATUS: Final[Mapping[int, type[Problem]]] = MappingProxyType(
    {401: EngineAuthFailed, 403: PermissionDenied, 410: DeadlineExceeded, 503: EngineUnavailable}
)


class _Error(msgspec.Struct, rename="camel"):
    error_num: int = 0
    error_message: str = ""


_ERROR: Final = msgspec.json.Decoder(_Error)


def in_reply(reply: Reply) -> Problem | None:
    """The problem the reply tells of; None when it is an answer."""
    if reply.status < 300:
        return None
    try:
        said = _ERROR.decode(reply.body)
    except msgspec.DecodeError:
        said = _Error(error_message=reply.body.decode(errors="replace")[:500])
    ours = _STATUS.get(reply.status) if reply.status == 401 else None
    ours = ours or NUMBERS.get(said.error_num) or _STATUS.get(reply.status)
    if ours is None:
        ours = QueryRejected if reply.status < 500 or said.error_num >= 1000 else EngineUnavailable
    return ours(
        said.error_message or f"HTTP {reply.status}",
        engine_code=str(said.error_num) if said.error_num else None,
        retryable=True if said.error_num in _RETRYABLE else None,
    )
