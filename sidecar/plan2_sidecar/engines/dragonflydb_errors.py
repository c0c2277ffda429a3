"""What an error reply of DragonflyDB or Redis means, by how it begins."""

from typing import Any, Final

from plan2_sidecar.errors import (
    EngineAuthFailed,
    EngineUnavailable,
    PermissionDenied,
    Problem,
    QueryRejected,
    StoreFull,
)

ERRORS: Final[tuple[tuple[str, type[Problem]], ...]] = (
    ("ERR Out of memory", StoreFull),  # Dragonfly's words
    ("OOM ", StoreFull),
    ("MISCONF ", StoreFull),
    ("NOPERM", PermissionDenied),
    ("WRONGPASS", EngineAuthFailed),
    ("NOAUTH", EngineAuthFailed),
    ("ERR invalid password", EngineAuthFailed),
    ("ERR Client sent AUTH", EngineAuthFailed),
    ("LOADING", EngineUnavailable),
    ("BUSY ", EngineUnavailable),
    ("MASTERDOWN", EngineUnavailable),
    ("CLUSTERDOWN", EngineUnavailable),
    ("TRYAGAIN", EngineUnavailable),
    ("READONLY", EngineUnavailable),  # it has become a replica
    ("ERR max number of clients", EngineUnavailable),
)


def checked(reply: Any) -> Any:
    """The reply, unless it is hiredis's ReplyError: then raises Problem."""
    if not isinstance(reply, Exception):
        return reply
    message = str(reply)
    code = message.partition(" ")[0]
    for start, ours in ERRORS:
        if message.startswith(start):
            raise ours(message, engine_code=code)
    raise QueryRejected(message, engine_code=code)
