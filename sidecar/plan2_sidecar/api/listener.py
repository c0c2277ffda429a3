"""aiohttp's server with the short way in front, and every error in our form.

What cannot be read as HTTP is answered as application/problem+json too.
"""

from aiohttp import web

from plan2_sidecar.api import problems
from plan2_sidecar.errors import Internal, InvalidRequest, Problem
from plan2_sidecar.server.protocol import Hot, HotHandler


class Runner(web.AppRunner):
    """An AppRunner whose every answer of 400 and above is application/problem+json."""

    hot: Hot | None = None

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.hot = self.hot
        return server


class _Server(web.Server):
    hot: Hot | None

    def __call__(self) -> web.RequestHandler:
        return _Handler(self, hot=self.hot, loop=self._loop, **self._kwargs)


class _Handler(HotHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # It logs, and raises where half an answer is already on its way.
        super().handle_error(request, status, exc, message)
        problem: Problem
        if status < 500:
            problem = InvalidRequest(f"this is no HTTP: {(message or '').partition(chr(10))[0]}")
        else:
            problem = Internal("the sidecar's log says more")
        answer = problems.response(problem)
        answer.force_close()
        return answer
