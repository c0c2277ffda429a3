"""ClickHouse's errors in the sidecar's words, read from the status, the headers and the body.

A statement can fail after the status 200 was sent: then the message stands at the body's end,
in a block that newer servers mark with `__exception__`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from plan2_sidecar.engines.http import Reply
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    MultipleStatements,
    ParameterMismatch,
    PermissionDenied,
    Problem,
    QueryRejected,
    ReadOnly,
    StoreFull,
)

_MESSAGE: Final = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.DOTALL)
_VERSION: Final = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)\s*$")
_MARK: Final = b"__exception__"
_TAIL: Final = 65536

CODES: Final[Mapping[int, type[Problem]]] = MappingProxyType(
    {
        # What the engine asks of us, or has no means for just now.
        76: EngineUnavailable,  # CANNOT_OPEN_FILE
        159: DeadlineExceeded,  # TIMEOUT_EXCEEDED
        160: DeadlineExceeded,  # TOO_SLOW
        192: EngineAuthFailed,  # UNKNOWN_USER
        193: EngineAuthFailed,  # WRONG_PASSWORD
        194: EngineAuthFailed,  # REQUIRED_PASSWORD
        202: EngineUnavailable,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209: ConnectionLost,  # SOCKET_TIMEOUT
        210: ConnectionLost,  # NETWORK_ERROR
        236: EngineUnavailable,  # ABORTED
        242: EngineUnavailable,  # TABLE_IS_READ_ONLY: its Keeper is away
        243: StoreFull,  # NOT_ENOUGH_SPACE
        252: StoreFull,  # TOO_MANY_PARTS
        319: ConnectionLost,  # UNKNOWN_STATUS_OF_INSERT
        394: DeadlineExceeded,  # QUERY_WAS_CANCELLED
        425: EngineUnavailable,  # SYSTEM_ERROR
        516: EngineAuthFailed,  # AUTHENTICATION_FAILED
        999: EngineUnavailable,  # KEEPER_EXCEPTION
        # What the caller can mend.
        164: ReadOnly,
        456: ParameterMismatch,  # UNKNOWN_QUERY_PARAMETER
        457: ParameterMismatch,  # BAD_QUERY_PARAMETER
        497: PermissionDenied,  # ACCESS_DENIED
    }
)


def in_reply(reply: Reply) -> Problem | None:
    """The problem that the status tells of."""
    if reply.status < 300:
        return None
    message = reply.body.decode(errors="replace").strip()
    problem = _from_message(message)
    if problem is not None:
        return problem
    if reply.status in (401, 403):
        return EngineAuthFailed(message or "the engine refused our credentials")
    return EngineUnavailable(f"HTTP {reply.status}: {message[:500]}")


def in_body(reply: Reply) -> Problem | None:
    """The problem that a body that began well ends with."""
    tail = reply.body[-_TAIL:]
    if "X-ClickHouse-Exception-Code" not in reply.headers:
        last = tail.rstrip(b"\r\n").rpartition(b"\n")[2]
        # Every line is a row, in braces, unless another FORMAT was asked for.
        if not last.startswith((b"Code: ", _MARK)):
            return None
    return in_text(tail)


def in_text(tail: bytes) -> Problem | None:
    """The problem whose message is the last thing in it; None without one."""
    found = tail.rfind(b"Code: ")
    return _from_message(tail[found:].decode(errors="replace").partition("\n")[0].strip())


def _from_message(message: str) -> Problem | None:
    match = _MESSAGE.search(message)
    if match is None:
        return None
    code, detail = int(match.group(1)), _VERSION.sub("", match.group(2)).strip()
    ours = CODES.get(code, QueryRejected)
    if code == 62 and "ulti-statement" in detail:
        ours = MultipleStatements
    elif code == 241 and "(total)" in detail:
        ours = EngineUnavailable  # the server's memory, not the statement's share of it
    return ours(detail, engine_code=str(code))
