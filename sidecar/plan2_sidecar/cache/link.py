"""Making the connection to the store that may be believed.

It is used only once the epoch in PostgreSQL was read and the store was found to be the same run
of the same process (`incarnation`); otherwise the epoch is raised first. So a store that was
away and comes back with old values never serves one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache import incarnation
from plan2_sidecar.cache.asking import Asking, Told
from plan2_sidecar.cache.epoch import Epoch
from plan2_sidecar.cache.incarnation import MARKER, Marker, Run
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import EngineUnavailable
from plan2_sidecar.fleet import Fleet, Member

if TYPE_CHECKING:
    from plan2_sidecar.engines.dragonflydb import DragonflyDB
    from plan2_sidecar.engines.resp import Channel

Word = bytes | str | int | float

# Sets the marker unless somebody else did since it was read.
_MARK: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
# Each loser of a race for the marker finds it settled.
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Link:
    """A connection, and the member of the fleet whose it is."""

    member: Member
    channel: Channel

    async def ask(self, *commands: Sequence[Word], deadline: Deadline) -> list[Any]:
        """The replies to commands that leave together, behind the guard; raises Problem."""

        async def work(client: DragonflyDB) -> list[Any]:
            return await client.on(self.channel, *commands, deadline=deadline)

        return await self.member.use(work, deadline, shared=True)

    def begin(self, packed: bytes, count: int, seconds: float, told: Told) -> bool:
        """As `ask` without a task, given up after `seconds`; False where it would have to wait.

        `packed` is `count` commands as the wire has them. Raises BreakerOpen; then, and after
        False, nothing was sent and nobody is told.
        """
        passage = self.member.passes()
        if passage is None:
            return False
        channel = self.channel
        asking = Asking(passage, count, seconds, told, channel.loop)
        channel.send(packed, (asking,) * count)
        return True


class Linker:
    """Makes links, one at a time, and remembers which run of the store the last one led to."""

    def __init__(self, fleet: Fleet, epoch: Epoch) -> None:
        self._fleet = fleet
        self._epoch = epoch
        self._run: Run | None = None

    async def make(self, deadline: Deadline) -> Link:
        """A link with the epoch settled; raises Problem."""
        member = self._fleet.member(Engine.DRAGONFLYDB)

        async def connect(client: DragonflyDB) -> Channel:
            return await client.track(deadline)

        link = Link(member, await member.use(connect, deadline))
        try:
            await self._settle(link, deadline)
        except BaseException:
            link.channel.close()
            raise
        return link

    async def _settle(self, link: Link, deadline: Deadline) -> None:
        """Agree with all the others on the epoch, and note in the store for which run it holds."""
        in_postgresql = await self._epoch.kept(deadline)
        run, marker = incarnation.read(await link.ask(*incarnation.QUESTIONS, deadline=deadline))
        if self._wanted(run, marker) != self._epoch.number or not _holds(marker, run, self._epoch):

            async def decide() -> int:
                return await self._mark(link, run, deadline)

            if in_postgresql:
                await self._epoch.settle(decide, deadline)
            else:
                self._epoch.adopt(await decide())
        self._run = run

    async def _mark(self, link: Link, run: Run, deadline: Deadline) -> int:
        """Set the marker as it should be; the epoch it then holds."""
        for _ in range(_TRIES):
            held = (await link.ask(("GET", MARKER), deadline=deadline))[0]
            wanted = self._wanted(run, incarnation.decode(held))
            marker = Marker(run, wanted).encode()
            marking = ("EVAL", _MARK, 1, MARKER, held or b"", marker)
            if held == marker or (await link.ask(marking, deadline=deadline))[0]:
                return wanted
        raise EngineUnavailable("the store's epoch is being settled", database=Engine.DRAGONFLYDB)

    def _wanted(self, run: Run, marker: Marker | None) -> int:
        if marker is None:
            # Without a marker the store holds nothing of ours, unless it has forgotten it.
            restarted = self._run is not None and not run.same(self._run)
            return self._epoch.number + restarted
        newest = max(self._epoch.number, marker.epoch)
        return newest if run.same(marker.run) else newest + 1


def _holds(marker: Marker | None, run: Run, epoch: Epoch) -> bool:
    return marker is not None and marker.epoch == epoch.number and run.same(marker.run)
