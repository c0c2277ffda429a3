"""An answer before it is anybody's response: the same for aiohttp and for the short way."""

import msgspec
from aiohttp import web

JSON = "application/json"


class Reply(msgspec.Struct, frozen=True):
    """`headers`, then `more`, stand before Content-Type, in this order; no body for 204.

    `headers` are remembered as they are written: what differs from answer to answer is in `more`.
    """

    status: int
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON
    more: tuple[tuple[str, str], ...] = ()

    def response(self) -> web.Response:
        """As aiohttp's."""
        if self.body is None:
            return web.Response(status=self.status, headers=dict(self.headers + self.more))
        return web.Response(
            status=self.status,
            body=self.body,
            headers=dict(self.headers + self.more) or None,
            content_type=self.content_type,
        )
