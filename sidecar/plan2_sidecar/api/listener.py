"""aiohttp's server, but what cannot be read as HTTP is answered in our form too."""

from aiohttp import web

from plan2_sidecar.api import problems
from plan2_sidecar.errors import Internal, InvalidRequest, Problem


class Runner(web.AppRunner):
    """An AppRunner whose every answer of 400 and above is application/problem+json."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class _Handler(web.RequestHandler):
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
