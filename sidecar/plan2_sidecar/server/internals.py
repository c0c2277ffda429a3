"""What the short way knows of aiohttp's inside: nothing else in the sidecar reads its privates.

Pinned to the minor versions in pyproject.toml; tests/unit/sidecar/test_server_internals.py holds
each of these to what the installed aiohttp does.
"""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

__all__ = ["SERVER", "date", "is_idle", "reason", "touch"]

SERVER: Final = SERVER_SOFTWARE.encode()


def is_idle(handler: web.RequestHandler) -> bool:
    """No request is being answered, none is queued, and none is half read by aiohttp's parser.

    The last is for the caller to know: bytes given to the parser are not seen from outside.
    """
    waiter = handler._waiter
    return (
        waiter is not None
        and not waiter.done()
        and not handler._messages
        and not handler._force_close
        and not handler._close
        and not handler._upgraded
    )


def touch(handler: web.RequestHandler, now: float) -> None:
    """A request was answered: the connection may stay idle for the whole time again."""
    handler._next_keepalive_close_time = now + handler._keepalive_timeout


def date() -> bytes:
    """The value of the Date header, made once a second."""
    return rfc822_formatted_time().encode()


def reason(status: int) -> str:
    """The reason phrase aiohttp writes after a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
