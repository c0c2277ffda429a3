"""Where the sidecar is and what opens it, from the variables that the injector sets.

`PLAN2_SOCKET` (cheaper) goes before `PLAN2_URL`, and is left out while nothing is at its path and
the URL is known too. `PLAN2_API_TOKEN` goes before the first line of `PLAN2_API_TOKEN_FILE`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:7420"


@dataclass(frozen=True)
class Address:
    """A socket's path, or a host and a port."""

    host: str
    port: int
    socket: str | None = None

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "localhost" if self.socket else f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.socket or f"http://{self.authority}"


def address(url: str | None, socket: str | None, environ: Mapping[str, str]) -> Address:
    """What was given, else what the environment says; raises ValueError for a URL of no use."""
    if url is None and socket is None:
        url = environ.get("PLAN2_URL") or None
        socket = environ.get("PLAN2_SOCKET") or None
        if socket is not None and url is not None and not Path(socket).is_socket():
            socket = None
    parts = urlsplit(url or DEFAULT_URL)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"the sidecar's URL is not of the form {DEFAULT_URL}: {url!r}")
    return Address(host=parts.hostname, port=parts.port or 80, socket=socket)


class Token:
    """The bearer token; one from a file is read again when the sidecar refuses it."""

    def __init__(self, token: str | None, environ: Mapping[str, str]) -> None:
        fixed = token or environ.get("PLAN2_API_TOKEN") or None
        file = environ.get("PLAN2_API_TOKEN_FILE") if fixed is None else None
        self._file = Path(file) if file else None
        self._current = fixed

    @property
    def current(self) -> str | None:
        """None where none is configured, or its file cannot be read yet."""
        if self._current is None:
            self._current = self._read()
        return self._current

    def renewed(self, refused: str | None) -> bool:
        """Whether there is another one than the sidecar just refused."""
        if self._file is not None:
            self._current = self._read()
        return self._current is not None and self._current != refused

    def _read(self) -> str | None:
        if self._file is None:
            return None
        try:
            lines = self._file.read_text().splitlines()
        except OSError:
            return None
        return next((line.strip() for line in lines if line.strip()), None)
