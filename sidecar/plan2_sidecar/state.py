"""What every request handler reaches: the parts of one running sidecar."""

import time
from dataclasses import dataclass, field

from aiohttp import web

from plan2_sidecar.deadline import Clock
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.metrics import Metrics
from plan2_sidecar.settings import Settings
from plan2_sidecar.tokens import Tokens


@dataclass
class Sidecar:
    """One running sidecar; `stopping` is set when the end was asked for."""

    settings: Settings
    fleet: Fleet
    tokens: Tokens
    metrics: Metrics = field(init=False)
    clock: Clock = time.monotonic
    stopping: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.fleet)


SIDECAR = web.AppKey("sidecar", Sidecar)
