"""MongoDB's errors in the sidecar's words: the server's code first, then PyMongo's class."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from bson.errors import BSONError
from pymongo import errors as theirs

from plan2_sidecar.engines.base import nearest
from plan2_sidecar.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    Internal,
    InvalidRequest,
    PermissionDenied,
    Problem,
    QueryRejected,
    StoreFull,
)

ERRORS: Final[Mapping[type[BaseException], type[Problem]]] = MappingProxyType(
    {
        theirs.PyMongoError: QueryRejected,
        theirs.ConnectionFailure: ConnectionLost,
        theirs.AutoReconnect: ConnectionLost,
        theirs.NetworkTimeout: ConnectionLost,
        theirs.NotPrimaryError: EngineUnavailable,
        theirs.ServerSelectionTimeoutError: EngineUnavailable,
        theirs.WaitQueueTimeoutError: EngineUnavailable,
        theirs.ConfigurationError: EngineUnavailable,
        theirs.InvalidURI: EngineUnavailable,
        theirs.ExecutionTimeout: DeadlineExceeded,
        theirs.DuplicateKeyError: Conflict,
        theirs.InvalidOperation: Internal,
        theirs.DocumentTooLarge: QueryRejected,
        BSONError: InvalidRequest,
        OverflowError: InvalidRequest,  # an integer beyond 64 bits
        OSError: EngineUnavailable,
    }
)
CODES: Final[Mapping[int, type[Problem]]] = MappingProxyType(
    {
        11: EngineAuthFailed,  # UserNotFound
        13: PermissionDenied,
        18: EngineAuthFailed,
        50: DeadlineExceeded,  # MaxTimeMSExpired
        112: Conflict,  # WriteConflict
        251: Conflict,  # NoSuchTransaction
        262: DeadlineExceeded,  # ExceededTimeLimit
        11000: Conflict,  # DuplicateKey
        11001: Conflict,
        14031: StoreFull,  # OutOfDiskSpace
        8000: EngineAuthFailed,  # Atlas
    }
)
_RETRYABLE: Final = frozenset({112, 251})


def translate(error: Exception) -> Problem | None:
    """The error as a `Problem`; None for what is not the driver's."""
    ours = nearest(ERRORS, error)
    if ours is None:
        return None
    code = error.code if isinstance(error, theirs.OperationFailure) else None
    if ours in (QueryRejected, Conflict, DeadlineExceeded) and code is not None:
        ours = CODES.get(code, ours)
    message = str(error)
    if isinstance(error, theirs.OperationFailure):
        message = str((error.details or {}).get("errmsg") or message)
    return ours(
        message.partition(", Timeout:")[0] or type(error).__name__,
        engine_code=None if code is None else str(code),
        retryable=True if code in _RETRYABLE else None,
    )


def write_problem(reply: Mapping[str, Any]) -> Problem | None:
    """The first of the write errors inside a reply that says ok."""
    failed = reply.get("writeErrors")
    if not failed:
        return None
    code = int(failed[0].get("code", 0))
    return CODES.get(code, QueryRejected)(
        str(failed[0].get("errmsg", "the write failed")),
        engine_code=str(code),
        retryable=True if code in _RETRYABLE else None,
    )
