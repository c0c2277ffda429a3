"""The carts over HTTP: GET, PUT and DELETE /carts/<user>."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from carts import Carts

from plan2_client import SyncClient, Unavailable

CLIENT = SyncClient()
CARTS = Carts(CLIENT)


class Handler(BaseHTTPRequestHandler):
    """One request; `X-Source` says which store had the cart."""

    def do_GET(self) -> None:
        if self.path == "/healthz":
            return self.answer(200, {"status": CLIENT.health()["status"]})
        cart = CARTS.get(self.user())
        if cart is None:
            return self.answer(404, {"error": "no cart"})
        return self.answer(200, cart.items, {"X-Source": cart.source})

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        CARTS.put(self.user(), json.loads(self.rfile.read(length)))
        self.answer(204)

    def do_DELETE(self) -> None:
        CARTS.delete(self.user())
        self.answer(204)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except Unavailable as problem:
            self.answer(503, {"error": problem.code}, {"Retry-After": "1"})
        except json.JSONDecodeError:
            self.answer(400, {"error": "the body is not JSON"})

    def user(self) -> str:
        return self.path.removeprefix("/carts/")

    def answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if content:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    CLIENT.ready()
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
    server.server_close()
    CLIENT.close()


if __name__ == "__main__":
    main()
