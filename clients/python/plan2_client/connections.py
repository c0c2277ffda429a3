"""Kept-alive connections for `SyncClient`: the standard library's, over TCP or a Unix socket.

Any thread may take one. One that the sidecar closed meanwhile is noticed before it is used, so
that nothing has to be sent twice.
"""

import http.client
import os
import select
import socket
import threading
import time

from plan2_client.environment import Address


class Connection(http.client.HTTPConnection):
    """One connection; `spend()` gives each wait what is left until the deadline."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host, address.port)
        self._path = address.socket
        self.authority = address.authority

    def connect(self) -> None:
        """Open it; raises OSError."""
        if self._path is None:
            super().connect()
            return
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(self.timeout)
            opened.connect(self._path)
        except BaseException:
            opened.close()
            raise
        self.sock = opened

    def spend(self, until: float) -> None:
        """The next wait ends at `until` (monotonic) with TimeoutError."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.timeout = left
        if self.sock is not None:
            self.sock.settimeout(left)

    @property
    def usable(self) -> bool:
        """False once the other side closed, or said something nobody asked for."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Pool:
    """The last one given back is the first one taken, so that idle ones grow old and go."""

    def __init__(self, address: Address, idle: int) -> None:
        self._address = address
        self._most = idle
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._process = os.getpid()

    def take(self) -> Connection:
        """An open connection, or one that its first request opens."""
        if self._process != os.getpid():
            # A forked worker would speak into its parent's connections.
            self._idle, self._process = [], os.getpid()
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return Connection(self._address)
            if connection.usable:
                return connection
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next call."""
        with self._lock:
            if len(self._idle) < self._most and self._process == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
