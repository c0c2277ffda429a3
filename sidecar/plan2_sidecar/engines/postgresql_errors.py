"""PostgreSQL's errors in the sidecar's words: asyncpg's classes → ours, the nearest class wins.

asyncpg has one class an SQLSTATE, in the hierarchy of the SQLSTATE classes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import asyncpg
from asyncpg import exceptions as theirs

from plan2_sidecar.engines.base import nearest
from plan2_sidecar.errors import (
    Conflict,
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

# The client's own DataError (a value its codec refuses) is another class than SQLSTATE 22000's.
_ClientDataError: Final = next(
    kind for kind in theirs.InterfaceError.__subclasses__() if kind.__name__ == "DataError"
)

ERRORS: Final[Mapping[type[BaseException], type[Problem]]] = MappingProxyType(
    {
        asyncpg.PostgresError: QueryRejected,
        theirs.FatalPostgresError: EngineUnavailable,
        asyncpg.PostgresConnectionError: EngineUnavailable,  # 08
        theirs.ConnectionDoesNotExistError: ConnectionLost,
        theirs.ConnectionFailureError: ConnectionLost,
        asyncpg.InvalidAuthorizationSpecificationError: EngineAuthFailed,  # 28
        asyncpg.InvalidCatalogNameError: EngineUnavailable,  # 3D: our database is not there yet
        asyncpg.UniqueViolationError: Conflict,
        asyncpg.ExclusionViolationError: Conflict,
        asyncpg.TransactionRollbackError: Conflict,  # 40: serialization, deadlock
        theirs.TransactionIntegrityConstraintViolationError: QueryRejected,
        asyncpg.LockNotAvailableError: Conflict,
        asyncpg.InsufficientPrivilegeError: PermissionDenied,
        asyncpg.ReadOnlySQLTransactionError: ReadOnly,
        asyncpg.InvalidCachedStatementError: Conflict,
        asyncpg.InsufficientResourcesError: EngineUnavailable,  # 53
        asyncpg.DiskFullError: StoreFull,
        asyncpg.OutOfMemoryError: StoreFull,
        asyncpg.QueryCanceledError: DeadlineExceeded,
        asyncpg.OperatorInterventionError: EngineUnavailable,  # 57: shut down, starting
        asyncpg.PostgresSystemError: EngineUnavailable,  # 58
        theirs.ConfigFileError: EngineUnavailable,  # F0
        asyncpg.InternalServerError: EngineUnavailable,  # XX
        asyncpg.InterfaceError: ParameterMismatch,  # the count of the arguments
        _ClientDataError: ParameterMismatch,
        theirs.ClientConfigurationError: EngineUnavailable,
        theirs.UnsupportedClientFeatureError: QueryRejected,
        theirs.UnsupportedServerFeatureError: QueryRejected,
        asyncpg.InternalClientError: ConnectionLost,
        theirs.TargetServerAttributeNotMatched: EngineUnavailable,
        theirs.OutdatedSchemaCacheError: Conflict,
        ConnectionError: ConnectionLost,
        OSError: EngineUnavailable,
        TimeoutError: DeadlineExceeded,
    }
)
_RETRYABLE: Final = (
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
    theirs.OutdatedSchemaCacheError,
)
_CONNECTION_GONE: Final = ("connection is closed", "connection was closed", "another operation")


def translate(error: Exception) -> Problem | None:
    """The error as a `Problem`; None for what is not the driver's."""
    ours: Callable[..., Problem] | None = nearest(ERRORS, error)
    if ours is None:
        return None
    state = getattr(error, "sqlstate", None)
    message = str(error) or type(error).__name__
    if isinstance(error, asyncpg.PostgresError):
        message = str(error.args[0])
        if "multiple commands" in message:
            ours = MultipleStatements
        elif message.startswith("invalid input for query argument") or "parameter $" in (
            getattr(error, "context", None) or ""
        ):
            ours = ParameterMismatch  # refused by our codec, or when it was bound: nothing ran
    elif isinstance(error, asyncpg.InterfaceError) and any(
        sign in message for sign in _CONNECTION_GONE
    ):
        ours = ConnectionLost
    retryable = True if ours is Conflict and isinstance(error, _RETRYABLE) else None
    return ours(message, engine_code=state, retryable=retryable)


def _of_binding(error: asyncpg.PostgresError) -> bool:
    return "parameter $" in (getattr(error, "context", None) or "")


def translate_connecting(error: Exception) -> Problem | None:
    """The same while a connection is made, when nothing can have run yet."""
    problem = translate(error)
    if isinstance(problem, ConnectionLost | DeadlineExceeded | ParameterMismatch):
        return EngineUnavailable(problem.detail, engine_code=problem.engine_code)
    if isinstance(problem, PermissionDenied):
        return EngineAuthFailed(problem.detail, engine_code=problem.engine_code)
    return problem
