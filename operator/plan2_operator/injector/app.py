"""The injector's two listeners, and the tasks beside them.

8443 speaks TLS to the API server (/mutate); 8080 answers kubelet and Prometheus (/livez,
/readyz, /metrics). Ready means: serving a certificate whose authority the API server was told
to trust, and the resources listed once, as far as the API server would.
"""

import asyncio
import logging
import random
import ssl
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from aiohttp import web
from prometheus_client import exposition

from plan2_operator.injector import admission, certificates, keeper
from plan2_operator.injector.admission import NotAReview
from plan2_operator.injector.certificates import Leaf
from plan2_operator.injector.keeper import Contended, Keeper, NotRegistered
from plan2_operator.injector.kube import ApiError, Kube
from plan2_operator.injector.metrics import Metrics
from plan2_operator.injector.secrets import Files, SecretStore
from plan2_operator.injector.settings import Settings
from plan2_operator.injector.watch import Cache

logger = logging.getLogger(__name__)

BODY_BYTES: Final = 8 << 20
KEEP_SECONDS: Final = 30.0
SHORTEST_PAUSE_SECONDS: Final = 0.5
FAILURES: Final = (
    ApiError,
    Contended,
    NotRegistered,
    aiohttp.ClientError,
    ssl.SSLError,
    OSError,
    TimeoutError,
    ValueError,
)


class Certificates(Protocol):
    """Whoever keeps the served certificate current: `keeper.Keeper` or `secrets.Files`."""

    trusted: bool

    async def tick(self) -> None:
        """One round."""


class Injector:
    """One replica: `run` serves until `stop` is set, then drains."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.cache = Cache(kube, settings.watch_namespaces)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.certificates = self._certificates(kube)
        self._serving = False
        self._loaded = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; a pod's Service forgets it while it still answers.

        Raises what ended one of the tasks beside the listeners: the pod is then started anew.
        """
        health = await _listen(self._health_app(), self.settings.host, self.settings.health_port)
        tasks = [asyncio.create_task(self.cache.run()), asyncio.create_task(self._keep())]
        for task in tasks:
            task.add_done_callback(lambda _: stop.set())
        server: web.AppRunner | None = None
        try:
            if await _first(self._loaded, stop):
                server = await _listen(
                    self._webhook_app(), self.settings.host, self.settings.port, self.tls
                )
                self._serving = True
                logger.info("listening on %s:%d", self.settings.host, self.settings.port)
                await stop.wait()
                self._serving = False
                await asyncio.sleep(self.settings.drain_seconds)
        finally:
            for runner in filter(None, (server, health)):
                await runner.cleanup()
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    def ready(self) -> str | None:
        """None when ready, else what is missing."""
        if not self._serving:
            return "not serving"
        if not self.certificates.trusted:
            return "the webhook does not trust the certificate"
        if not self.cache.tried():
            return "resources not listed yet"
        return None

    def _certificates(self, kube: Kube) -> Certificates:
        settings = self.settings
        if settings.certificate_directory is not None:
            return Files(settings.certificate_directory, self.tls.load_cert_chain)
        store = SecretStore(
            kube,
            namespace=settings.namespace,
            webhook_configuration=settings.webhook_configuration,
        )
        return Keeper(
            store,
            ca_secret=settings.ca_secret,
            tls_secret=settings.tls_secret,
            server_names=settings.server_names(),
            clock=lambda: datetime.now(UTC),
            load=lambda leaf: load(self.tls, leaf),
        )

    async def _keep(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                await self.certificates.tick()
            except FAILURES as error:
                self.metrics.certificate_failures.inc()
                logger.warning("certificates: %s: %s", type(error).__name__, error)
            else:
                self._show_expiry()
                self._loaded.set()
                pause = KEEP_SECONDS / 2
            pause = min(pause * 2, KEEP_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))

    def _show_expiry(self) -> None:
        kept = self.certificates
        if isinstance(kept, keeper.Keeper) and kept.served and kept.authority:
            self.metrics.expiry("leaf", kept.served.certificate.not_valid_after_utc)
            self.metrics.expiry("authority", kept.authority.certificate.not_valid_after_utc)

    def _webhook_app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_post("/mutate", self._mutate)
        return app

    def _health_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    async def _mutate(self, request: web.Request) -> web.Response:
        with self.metrics.seconds.time():
            body = await request.read()
            try:
                answer = admission.answer(body, self.settings, self.cache.lookup)
            except NotAReview as error:
                self.metrics.admissions.labels("failed", "not_a_review").inc()
                return web.Response(status=400, text=str(error))
        self.metrics.admissions.labels(answer.outcome, answer.reason).inc()
        return web.Response(body=answer.body, content_type="application/json")

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        missing = self.ready()
        return web.Response(text=missing or "ok", status=503 if missing else 200)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        self.metrics.resources.set(len(self.cache))
        return web.Response(
            body=exposition.generate_latest(self.metrics.registry),
            headers={"Content-Type": exposition.CONTENT_TYPE_LATEST},
        )


def load(context: ssl.SSLContext, leaf: Leaf) -> None:
    """Serve `leaf` from the next handshake on; open connections are left alone."""
    data = leaf.data()
    # The ssl module reads keys from files only; the folder is private and gone at once.
    with tempfile.TemporaryDirectory(prefix="plan2-") as folder:
        certificate, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
        certificate.write_bytes(data[certificates.CERTIFICATE])
        key.write_bytes(data[certificates.KEY])
        context.load_cert_chain(certificate, key)


async def _listen(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return runner


async def _first(wanted: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait for either; True if it is `wanted`."""
    waits = [asyncio.create_task(event.wait()) for event in (wanted, other)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
        with suppress(asyncio.CancelledError):
            await wait
    return wanted.is_set() and not other.is_set()
