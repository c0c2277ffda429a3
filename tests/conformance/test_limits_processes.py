"""Three real sidecars under load: each window of each client holds its limit and no more."""

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

from fixtures.engine_server import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, Start
from fixtures.limit_windows import Admission, fit
from fixtures.store_monitor import Counted, monitored

SECONDS = float(os.environ.get("PLAN2_TEST_LIMITS_SECONDS", "30"))
SIDECARS = 3
CALLERS = 4


@dataclass
class Limited:
    """One client, and what the sidecars said to its calls."""

    client_id: str
    window_ms: int
    limit: int
    exact: bool = False
    admissions: list[Admission] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"p2:l:fixed-window:{self.window_ms}:{self.client_id}"

    @property
    def body(self) -> dict[str, Any]:
        return {
            "clientId": self.client_id,
            "windowMs": self.window_ms,
            "limit": self.limit,
            "exact": self.exact,
            # What is admitted without the store is another promise.
            "onStoreFailure": "closed",
        }


def clients() -> list[Limited]:
    return [
        Limited("login", 700, 5, exact=True),
        Limited("crawler", 1000, 50),
        Limited("mobile", 2000, 150),
        Limited("partner", 3000, 600),
        Limited("tenant", 1_000_000, 3000),
    ]


async def test_three_sidecars_under_load_admit_the_limit_and_no_more(
    start_sidecar: Start, connect: Connect, dragonflydb: EngineServer
) -> None:
    variables = {
        "DRAGONFLY_HOST": dragonflydb.host,
        "DRAGONFLY_PORT": str(dragonflydb.port),
        "DRAGONFLY_PASSWORD": dragonflydb.admin_password,
    }
    sidecars = [connect(start_sidecar(**variables)) for _ in range(SIDECARS)]
    limited = clients()
    until = time.monotonic() + SECONDS

    async with monitored(dragonflydb) as counters:
        await asyncio.gather(
            *(
                call(sidecar, limited, random.Random(f"{place} {number}"), until)
                for place, sidecar in enumerate(sidecars)
                for number in range(CALLERS)
            )
        )

    for client in limited:
        check(client, counters[client.key])
    total = sum(len(client.sources) for client in limited)
    print(f"{total} checks in {SECONDS:.0f} s by {SIDECARS} sidecars")


async def call(
    sidecar: SidecarClient, limited: list[Limited], chance: random.Random, until: float
) -> None:
    """Calls for one client at a time, in bursts, as fast as the answers come."""
    while time.monotonic() < until:
        client = chance.choice(limited)
        for _ in range(chance.randint(1, 40)):
            began = time.time() * 1000
            reply = await sidecar.call("POST", "/api/v2/rate-limit/check", json=client.body)
            assert reply.status == 200, reply.body
            if reply.body["allowed"]:
                assert not reply.body["degraded"]
                client.admissions.append(Admission(began, time.time() * 1000))
            client.sources.append(reply.body["source"])


def check(client: Limited, counted: Counted) -> None:
    """Every admission fits a window; says how much was held back."""
    # MONITOR tells the time of a command, which its script began up to a millisecond before.
    fitted = fit(client.admissions, counted.ends, client.window_ms, client.limit, seen_late_ms=1.0)
    shares = {source: client.sources.count(source) for source in sorted(set(client.sources))}
    admitted = len(client.admissions)
    print(
        f"\n{client.client_id}: {client.limit} in {client.window_ms} ms, "
        f"{len(counted.ends)} windows, {len(client.sources)} checks {shares}, "
        f"{admitted} admitted of {counted.granted} granted, "
        f"fullest window {max(fitted.used.values())}, "
        f"{1 - admitted / counted.granted:.1%} stranded"
    )
    assert not fitted.misplaced, f"{client.client_id}: {len(fitted.misplaced)} too many"
    assert max(fitted.used.values()) <= client.limit
    assert admitted <= counted.granted
    assert counted.granted <= client.limit * len(counted.ends)
    assert admitted > counted.granted / 2
