"""DragonflyDB as the sidecar's own store: what caches, sessions, limits and the registry ask.

Calls are short, behind the engine's guard, and answer with the bytes as they came. Keys and
what they mean belong to the callers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import QueryRejected
from plan2_sidecar.fleet import Fleet

if TYPE_CHECKING:
    from plan2_sidecar.engines.dragonflydb import DragonflyDB

# Whoever asks has another way to answer, so a store that is slow is given up early.
STORE_SECONDS: Final = 0.5

Word = bytes | str | int | float


class Script:
    """A Lua script: one declared key, integers or bytes back (Dragonfly's rules)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Store:
    """The configured Dragonfly, or another server that speaks its protocol."""

    def __init__(self, fleet: Fleet, engine: Engine = Engine.DRAGONFLYDB) -> None:
        self.engine = engine
        self._fleet = fleet

    @property
    def configured(self) -> bool:
        """Whether there is one at all."""
        return self.engine in self._fleet.members

    async def ask(self, *command: Word, deadline: Deadline) -> Any:
        """The reply to one command within STORE_SECONDS; raises Problem."""
        short = deadline.earlier(STORE_SECONDS)
        member = self._fleet.member(self.engine)

        async def work(client: DragonflyDB) -> Any:
            return await client.command(*command, deadline=short)

        return await member.use(work, short, shared=True)

    async def run(
        self, script: Script, key: Word, arguments: Sequence[Word], deadline: Deadline
    ) -> Any:
        """The script's reply; it is sent whole when the server does not know it."""
        try:
            return await self.ask("EVALSHA", script.digest, 1, key, *arguments, deadline=deadline)
        except QueryRejected as problem:
            if not _is_unknown(problem):
                raise
        return await self.ask("EVAL", script.text, 1, key, *arguments, deadline=deadline)

    async def run_beside(
        self,
        script: Script,
        key: Word,
        arguments: Sequence[Word],
        command: Sequence[Word],
        deadline: Deadline,
    ) -> tuple[Any, Any]:
        """The script's reply, and that to a command that leaves with it."""
        try:
            known = ("EVALSHA", script.digest, 1, key, *arguments)
            return await self._both(known, command, deadline)
        except QueryRejected as problem:
            if not _is_unknown(problem):
                raise
        return await self._both(("EVAL", script.text, 1, key, *arguments), command, deadline)

    async def _both(
        self, one: Sequence[Word], other: Sequence[Word], deadline: Deadline
    ) -> tuple[Any, Any]:
        short = deadline.earlier(STORE_SECONDS)
        member = self._fleet.member(self.engine)

        async def work(client: DragonflyDB) -> tuple[Any, Any]:
            return await client.both(one, other, deadline=short)

        return await member.use(work, short, shared=True)


def _is_unknown(problem: QueryRejected) -> bool:
    """Whether the server does not have the script: Dragonfly's words carry no NOSCRIPT."""
    return problem.engine_code == "NOSCRIPT" or "No matching script" in problem.detail
