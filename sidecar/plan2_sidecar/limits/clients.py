"""The clients this sidecar has been asked about lately, and the generation of their counters.

DELETE gives a client a new generation, and with it new counters. Others notice within
TRUSTED_SECONDS, because nothing known about a client is used for longer without a look.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Final

from plan2_sidecar.limits.lease import Lease
from plan2_sidecar.limits.model import LONGEST_WINDOW_MS, Algorithm

TRUSTED_SECONDS: Final = 1.0
# Half-way a look is taken beside the calls, so that those of a busy client never wait for it.
STALE_SECONDS: Final = 0.5
# It takes along others that are busy and will be stale next: one round trip for all of them.
SOON_STALE_SECONDS: Final = 0.25
MOST_LOOKED_AT: Final = 64
MOST_CLIENTS: Final = 50_000
MOST_WINDOWS_PER_CLIENT: Final = 16
# No counter of an earlier generation lives longer than a sliding window and its last bucket.
GENERATION_MS: Final = 2 * LONGEST_WINDOW_MS


def counter_key(algorithm: Algorithm, window_ms: int, client_id: str, generation: str) -> str:
    """The counter's name on the store."""
    space = f"p2:l@{generation}" if generation else "p2:l"
    return f"{space}:{algorithm}:{window_ms}:{client_id}"


def generation_key(client_id: str) -> str:
    """Where a client's generation stands; a client that was never reset has none."""
    return f"p2:l:generation:{client_id}"


class Client:
    """One client: `generation` as it was at `read_at`, and its leases by windowMs."""

    __slots__ = ("client_id", "generation", "leases", "looking", "read_at")

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.generation = ""
        self.read_at = -math.inf
        self.looking = False
        self.leases: dict[int, Lease] = {}

    def lease(self, window_ms: int) -> Lease:
        """The lease of that window, new when there was none."""
        lease = self.leases.get(window_ms)
        if lease is None:
            if len(self.leases) >= MOST_WINDOWS_PER_CLIENT:
                del self.leases[next(iter(self.leases))]
            lease = self.leases[window_ms] = Lease()
        return lease

    def learn(self, generation: str, asked_at: float) -> None:
        """Take over what the store said to a question asked then, unless newer is known."""
        if asked_at < self.read_at:
            return
        self.read_at = asked_at
        if generation != self.generation:
            self.generation = generation
            for lease in self.leases.values():
                lease.forget()

    def busy(self, since: float) -> bool:
        """Whether anything was allowed to it since then."""
        return any(lease.spent_at >= since for lease in self.leases.values())

    def idle(self, now: float) -> bool:
        """Whether nothing would be lost with it."""
        return all(lease.line is None and now >= lease.ends for lease in self.leases.values())


class Clients:
    """At most `most` of them; the one not asked about for longest goes first."""

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self._most = most
        self._clients: OrderedDict[str, Client] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def known(self, client_id: str) -> Client | None:
        """The client, if anything is known."""
        client = self._clients.get(client_id)
        if client is not None:
            self._clients.move_to_end(client_id)
        return client

    def get(self, client_id: str) -> Client:
        """The client."""
        client = self.known(client_id)
        if client is None:
            client = self._clients[client_id] = Client(client_id)
            if len(self._clients) > self._most:
                # Its unspent tokens are lost with it: that admits less, never more.
                self._clients.popitem(last=False)
        return client

    def latest(self, most: int) -> Iterator[Client]:
        """Those asked about last, the very last first."""
        return islice(reversed(self._clients.values()), most)

    def drop_idle(self, now: float) -> None:
        """Forget those at the old end about whom nothing is worth knowing any more."""
        while self._clients:
            oldest = next(iter(self._clients.values()))
            if not oldest.idle(now) or now - oldest.read_at < TRUSTED_SECONDS:
                return
            self._clients.popitem(last=False)
