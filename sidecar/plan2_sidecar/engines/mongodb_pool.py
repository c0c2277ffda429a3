"""What PyMongo keeps to itself: how many connections there are; and a CA file from a string."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from pymongo.monitoring import ConnectionPoolListener


@dataclass(slots=True)
class Watch:
    """Whether a call was given a connection, before which nothing of it was sent."""

    connected: bool = False


_WATCH: Final[ContextVar[Watch | None]] = ContextVar("plan2_mongodb_watch", default=None)


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch the call that the body makes, in its task."""
    watch = Watch()
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


class PoolCounts(ConnectionPoolListener):
    """Counts the connections of a client's pools from its events."""

    def __init__(self) -> None:
        self._size = 0
        self._in_use = 0

    def counts(self, limit: int) -> dict[str, int]:
        """`size`, `idle`, `inUse`, `max`."""
        return {
            "size": self._size,
            "idle": max(self._size - self._in_use, 0),
            "inUse": self._in_use,
            "max": limit,
        }

    def connection_created(self, event: Any) -> None:
        self._size += 1

    def connection_closed(self, event: Any) -> None:
        self._size -= 1

    def connection_checked_out(self, event: Any) -> None:
        self._in_use += 1
        if (watch := _WATCH.get()) is not None:
            watch.connected = True

    def connection_checked_in(self, event: Any) -> None:
        self._in_use -= 1

    def pool_created(self, event: Any) -> None:
        """Nothing to count."""

    def pool_ready(self, event: Any) -> None:
        """Nothing to count."""

    def pool_cleared(self, event: Any) -> None:
        """Its connections are reported one by one."""

    def pool_closed(self, event: Any) -> None:
        """Its connections are reported one by one."""

    def connection_ready(self, event: Any) -> None:
        """Nothing to count."""

    def connection_check_out_started(self, event: Any) -> None:
        """Nothing to count."""

    def connection_check_out_failed(self, event: Any) -> None:
        """It was never out."""


class CertificateFile:
    """A certificate as a file, which is all PyMongo takes; written when first asked for."""

    def __init__(self, pem: str | None) -> None:
        self._pem = pem
        self._path: str | None = None

    def path(self) -> str | None:
        """None where there is no certificate."""
        if self._pem is not None and self._path is None:
            descriptor, self._path = tempfile.mkstemp(prefix="plan2-ca-", suffix=".pem")
            with os.fdopen(descriptor, "w") as file:
                file.write(self._pem)
        return self._path

    def remove(self) -> None:
        """Take the file away again."""
        if self._path is not None:
            os.unlink(self._path)
            self._path = None
