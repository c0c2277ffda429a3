"""Who may come in: the Host header, the Origin, the token. Everything else is behind it.

The API listens on localhost, and a browser on the same machine can be talked into calling
localhost: by a name that resolves there (Host), or from a foreign page (Origin).
"""

import socket
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from plan2_sidecar.errors import CrossOrigin, Misdirected, Unauthorized
from plan2_sidecar.settings import Settings, V1Mode
from plan2_sidecar.tokens import Tokens

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/health", "/api/v1/health"})


class Door:
    """Checks that need nothing but the request's head."""

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self._tokens = tokens
        self._v1_open = settings.v1 is V1Mode.OPEN
        self._hosts = LOCAL_HOSTS | settings.allowed_hosts
        self._knows = lru_cache(maxsize=256)(self._is_known)

    def admit(self, request: web.Request) -> None:
        """Raises Misdirected, CrossOrigin or Unauthorized."""
        headers = request.headers
        hosts = headers.getall(hdrs.HOST, ())
        if (len(hosts) != 1 or not self._knows(hosts[0])) and not _on_unix_socket(request):
            named = ", ".join(hosts) or "no host"
            raise Misdirected(f"this sidecar does not serve {named}")
        for origin in headers.getall(hdrs.ORIGIN, ()):
            if not self._knows(_authority(origin)):
                raise CrossOrigin(f"pages of {origin} may not call this sidecar")
        if (
            self._tokens.required
            and self._is_guarded(request.path)
            and not self._tokens.admits(headers.get(hdrs.AUTHORIZATION))
        ):
            raise Unauthorized("send the token in PLAN2_API_TOKEN_FILE as Authorization: Bearer …")

    def lets_in(self, host: str, authorization: str | None, *, on_socket: bool) -> bool:
        """Whether a call of `/api/v2` without an Origin would be admitted."""
        if not (on_socket or self._knows(host)):
            return False
        return not self._tokens.required or self._tokens.admits(authorization)

    def _is_guarded(self, path: str) -> bool:
        if not path.startswith("/api") or path in OPEN_PATHS:
            return False
        return not (self._v1_open and path.startswith("/api/v1/"))

    def _is_known(self, host: str) -> bool:
        """`host` with its port, or without it, is one of ours."""
        host = host.lower()
        if host in self._hosts:
            return True
        name, colon, port = host.rpartition(":")
        return bool(colon) and port.isdigit() and name in self._hosts


def _authority(origin: str) -> str:
    """`host:port` of an Origin; empty, which is nobody's, when it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _on_unix_socket(request: web.Request) -> bool:
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    return connection is not None and connection.family == socket.AF_UNIX
