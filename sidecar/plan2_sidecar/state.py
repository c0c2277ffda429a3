"""What every request handler reaches: the parts of one running sidecar."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from plan2_sidecar.analytics import Analytics
from plan2_sidecar.cache.answers import Answers
from plan2_sidecar.cache.l1 import L1
from plan2_sidecar.cache.tiers import Tiers
from plan2_sidecar.catalog import CatalogReader
from plan2_sidecar.configuration import Configuration
from plan2_sidecar.configuration.copies import Copies
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.limits.limiter import Limiter
from plan2_sidecar.limits.presence import Presence
from plan2_sidecar.metrics import Metrics
from plan2_sidecar.registry import Registry
from plan2_sidecar.router import Router
from plan2_sidecar.sagas.service import Sagas
from plan2_sidecar.sessions import Sessions
from plan2_sidecar.settings import Settings
from plan2_sidecar.store import Store
from plan2_sidecar.tokens import Tokens
from plan2_sidecar.warehouse import Warehouse


class Part(Protocol):
    """What lives as long as the sidecar and has work beside the requests."""

    async def look(self) -> None:
        """Called once a second; what it raises is logged, and the next look comes."""
        ...

    async def close(self) -> None:
        """Called once, when no request is under way and the engines are still there."""
        ...


@dataclass
class Sidecar:
    """One running sidecar; `stopping` is set when the end was asked for."""

    settings: Settings
    fleet: Fleet
    tokens: Tokens
    metrics: Metrics = field(init=False)
    store: Store = field(init=False)
    database: Database = field(init=False)
    router: Router = field(init=False)
    tiers: Tiers = field(init=False)
    answers: Answers = field(init=False)
    limiter: Limiter = field(init=False)
    configuration: Configuration = field(init=False)
    sessions: Sessions = field(init=False)
    analytics: Analytics = field(init=False)
    registry: Registry = field(init=False)
    sagas: Sagas = field(init=False)
    parts: list[Part] = field(init=False)
    clock: Clock = time.monotonic
    stopping: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.fleet)
        self.store = Store(self.fleet)
        self.database = Database(self.fleet, migrates=self.settings.connection_file is None)
        l1 = L1(self.settings.cache_max_bytes, self.clock)
        self.tiers = Tiers(self.fleet, self.database, l1, self.clock)
        self.metrics.watch(self.tiers.levels)
        self.answers = Answers(self.fleet, self.tiers, self.clock)
        presence = Presence(self.store, self.clock)
        self.limiter = Limiter(self.store, presence, self.clock)
        catalog = CatalogReader(self.fleet, self.clock)
        self.router = Router(catalog)
        self.sagas = Sagas(
            self.fleet,
            self.database,
            lease_ms=self.settings.saga_lease_ms,
            clock=self.clock,
            told=self.answers.told,
            ended=self.metrics.cross_db_ended,
        )
        self.parts = [self.tiers, self.answers, presence, self.limiter, catalog, self.sagas]
        self._add_resources()

    def _add_resources(self) -> None:
        """What services keep: sessions, configuration, the registry, what they tell of requests."""
        warehouse = Warehouse(self.fleet)
        # By hand the schema is made by the first call that needs it, not by a look.
        sweeps = self.settings.connection_file is not None
        copies = Copies(self.database, warehouse, sweeps=sweeps)
        self.configuration = Configuration(self.database, self.tiers, copies)
        self.sessions = Sessions(self.database, self.tiers, sweeps=sweeps)
        self.analytics = Analytics(warehouse, self.metrics.analytics_dropped)
        self.registry = Registry(self.store, self.tiers, self.database)
        self.parts += [copies, self.sessions, self.analytics, self.registry]


SIDECAR = web.AppKey("sidecar", Sidecar)
