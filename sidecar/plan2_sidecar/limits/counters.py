"""The counters on the store, each of the generation that its client has now."""

import secrets
from collections.abc import Sequence
from typing import Any

from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem, QueryRejected, StoreFull
from plan2_sidecar.limits import scripts
from plan2_sidecar.limits.clients import (
    GENERATION_MS,
    TRUSTED_SECONDS,
    Client,
    counter_key,
    generation_key,
)
from plan2_sidecar.limits.lease import Grant, Lease
from plan2_sidecar.limits.line import Wish
from plan2_sidecar.limits.model import Algorithm
from plan2_sidecar.limits.presence import Sharing
from plan2_sidecar.limits.store import CounterStore
from plan2_sidecar.store import STORE_SECONDS, Script, Word


class Counters:
    """What is asked of the store; every call raises Problem."""

    def __init__(self, store: CounterStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def count(
        self,
        client: Client,
        algorithm: Algorithm,
        window_ms: int,
        script: Script,
        words: Sequence[Word],
        deadline: Deadline,
    ) -> tuple[float, Any]:
        """The reply of a script on the client's counter, and the moment it was sent.

        A generation that may have changed is asked for in the same breath; a count in one that
        was over is of no account, and the next goes to the right one.
        """
        while True:
            generation = client.generation
            key = counter_key(algorithm, window_ms, client.client_id, generation)
            sent = self._clock()
            try:
                if sent - client.read_at < TRUSTED_SECONDS:
                    reply = await self._store.run(script, key, words, deadline)
                else:
                    command = _reading([client])
                    reply, found = await self._store.run_beside(
                        script, key, words, command, deadline
                    )
                    if client.generation == generation:
                        # Else something newer was learnt meanwhile.
                        _learn([client], found, sent)
            except QueryRejected as problem:
                # From within a script it does not stand where the store's own errors have it.
                if "out of memory" in problem.detail.lower():
                    raise StoreFull(problem.detail, database=problem.database) from problem
                raise
            if client.generation == generation:
                return sent, reply

    async def read_generations(self, clients: Sequence[Client], deadline: Deadline) -> None:
        """Learn which of the clients were reset."""
        asked_at = self._clock()
        found = await self._store.ask(*_reading(clients), deadline=deadline)
        _learn(clients, found, asked_at)

    async def new_generation(self, client: Client, deadline: Deadline) -> None:
        """Give the client counters that nobody has used."""
        # No number that is counted up: one that expired would be given a second time.
        generation = secrets.token_hex(6)
        key = generation_key(client.client_id)
        await self._store.ask("SET", key, generation, "PX", GENERATION_MS, deadline=deadline)
        client.learn(generation, self._clock())

    async def give_back(self, client: Client, window_ms: int, lease: Lease) -> None:
        """Return all tokens of a lease. They are forgotten first: a lost reply loses them."""
        key = counter_key(Algorithm.FIXED_WINDOW, window_ms, client.client_id, client.generation)
        window, tokens = lease.window, lease.forget()
        deadline = Deadline.after(STORE_SECONDS, self._clock)
        try:
            await self._store.run(scripts.GIVE_BACK, key, [tokens, window], deadline)
        except Problem:
            # They stay unspent until the window's end.
            return


class LeaseCounter:
    """What a `Line` asks of the store for its lease."""

    def __init__(
        self, counters: Counters, client: Client, window_ms: int, sharing: Sharing, clock: Clock
    ) -> None:
        self._counters = counters
        self._client = client
        self._window_ms = window_ms
        self._sharing = sharing
        self._clock = clock

    @property
    def trusted(self) -> bool:
        return self._clock() - self._client.read_at < TRUSTED_SECONDS

    async def renew(self) -> None:
        deadline = Deadline.after(STORE_SECONDS, self._clock)
        await self._counters.read_generations([self._client], deadline)

    async def grant(self, wish: Wish) -> tuple[float, Grant]:
        words = [*wish, self._sharing.sidecars, self._window_ms]
        deadline = Deadline.after(STORE_SECONDS, self._clock)
        sent, reply = await self._counters.count(
            self._client, Algorithm.FIXED_WINDOW, self._window_ms, scripts.GRANT, words, deadline
        )
        return sent, Grant.of(reply)


def _reading(clients: Sequence[Client]) -> list[Word]:
    """The command that reads their generations."""
    return ["MGET", *(generation_key(client.client_id) for client in clients)]


def _learn(clients: Sequence[Client], found: Sequence[bytes | None], asked_at: float) -> None:
    for client, generation in zip(clients, found, strict=True):
        client.learn("" if generation is None else generation.decode(), asked_at)
