"""Which statements go on the lane: reads that were seen to answer soon, with a row at most.

What is short is learnt from answers on connections of their own, and unlearnt from those on the
lane. A statement that was wrong there does not go back for a while.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, cast

from plan2_sidecar.engines import postgresql_wire as wire
from plan2_sidecar.engines.base import Calls, Cancel, Told
from plan2_sidecar.engines.postgresql_lane import Asked, Lane, Prepared
from plan2_sidecar.engines.postgresql_pure import is_pure
from plan2_sidecar.engines.postgresql_statements import by_row
from plan2_sidecar.errors import Problem

if TYPE_CHECKING:
    from plan2_sidecar.deadline import Deadline
    from plan2_sidecar.engines.pool import Pool
    from plan2_sidecar.engines.postgresql_statements import Session, Statement
    from plan2_sidecar.query import Query

Key = tuple[str, int | None]

# A round trip and this much is soon; twenty times as much makes what was soon before an exception.
_SOON_SECONDS: Final = 0.001
_FAR_FROM_SOON: Final = 20
# So many answers that came soon make it likely that the next ones will; and so many in a row on
# the lane that did not, that it is the statement, and no pause of this process.
_LIKELY: Final = 8
_UNLIKELY: Final = 5
# How long a statement stays off the lane, and how long a round trip is believed in.
_BANNED_SECONDS: Final = 10.0
_MEASURED_SECONDS: Final = 60.0
# Between the end of a lane and the next; twice as long after each that could not be opened.
_AGAIN_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_STATEMENTS: Final = 100
# What is wrong with a caller's values, and not with the statement.
_DATA_EXCEPTION: Final = "22"


class _Trial:
    """A statement that is not on the lane: how often it answered soon, and when it may be."""

    __slots__ = ("not_before", "soon")

    def __init__(self, not_before: float = 0.0) -> None:
        self.not_before = not_before
        self.soon = 0


class _Short(Prepared):
    """A statement that is on the lane; `late`, how often in a row it did not answer soon."""

    __slots__ = ("columns", "key", "late")

    def __init__(
        self,
        key: Key,
        name: str,
        text: str,
        kinds: tuple[frozenset[type], ...],
        columns: tuple[str, ...] | None,
    ) -> None:
        super().__init__(name, text, kinds)
        self.key = key
        self.columns = columns
        self.late = 0


class ShortReads:
    """The lane to one server, in one of the places of `pool`, while there is use for one.

    `in_place_of` closes a session and opens another, with SETTINGS.
    """

    def __init__(
        self,
        pool: Pool[Session],
        calls: Calls,
        in_place_of: Callable[[Session], Awaitable[Session]],
    ) -> None:
        self.quickest = math.inf
        self._pool = pool
        self._calls = calls
        self._in_place_of = in_place_of
        self._tried: OrderedDict[Key, _Trial] = OrderedDict()
        self._ready: dict[Key, _Short] = {}
        self._named = 0
        self._suspects: set[_Short] = set()
        self._measured_at = 0.0
        self._lane: Lane | None = None
        self._session: Session | None = None
        self._opening = False
        self._refused = 0
        self._not_before = 0.0

    def takes(self, query: Query) -> bool:
        """Whether the lane is where the query is likely to go."""
        return (
            self._lane is not None
            and not query.read_only
            and type(query.query) is str
            and (query.query, query.max_rows) in self._ready
        )

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        """Ask what `takes` took; None where it cannot be, with nothing done.

        Told Unanswered, it is to be asked on a connection of its own.
        """
        lane, max_rows = self._lane, query.max_rows
        short = self._ready.get((cast(str, query.query), max_rows))
        seconds = deadline.at - deadline.clock()
        values = [] if query.params is None else query.params
        if (
            lane is None
            or short is None
            or seconds <= 0
            or type(values) is not list
            or len(values) != len(short.kinds)
        ):
            return None

        def over(outcome: list[bytes] | BaseException) -> None:
            self._calls.leave()
            if isinstance(outcome, list):
                if len(outcome) > 1:
                    self._ban(short)
                told(by_row(outcome, max_rows, short.columns))
            else:
                told(outcome)

        cancel = lane.ask(short, values, seconds, over)
        if cancel is not None:
            self._calls.enter()
        return cancel

    def answered(self, query: Query, ready: Statement, session: Session, seconds: float) -> bool:
        """`ready` answered the query, by row, with one at most, on a connection of its own.

        True where the session is kept, to make place for the lane: it is not to be given back.
        """
        now = time.monotonic()
        if seconds < self.quickest or now - self._measured_at > _MEASURED_SECONDS:
            self.quickest, self._measured_at = seconds, now
        key = cast(str, query.query), query.max_rows
        if key in self._ready:
            return self._opens(session, now)
        trial = self._tried.get(key)
        if trial is None:
            trial = self._try(key, _Trial())
        beyond = seconds - self.quickest
        if beyond > _SOON_SECONDS:
            if beyond > _SOON_SECONDS * _FAR_FROM_SOON:
                trial.soon = 0
            return False
        trial.soon += 1
        if trial.soon < _LIKELY or now < trial.not_before:
            return False
        return self._take(key, ready, trial) and self._opens(session, now)

    def took(self, answered: list[Asked], seconds: float) -> None:
        """The lane's answers, one after the other, took so long."""
        if seconds < self.quickest:
            self.quickest = seconds
        if seconds <= self.quickest + _SOON_SECONDS * len(answered):
            if self._suspects:
                self._suspects.difference_update(one.prepared for one in answered)
            return
        for short in {cast(_Short, one.prepared) for one in answered}:
            short.late = short.late + 1 if short in self._suspects else 1
            self._suspects.add(short)
            if short.late >= _UNLIKELY:
                self._ban(short)

    def failed(self, prepared: Prepared, sqlstate: str) -> None:
        """The server refused it on the lane."""
        if not sqlstate.startswith(_DATA_EXCEPTION):
            self._ban(cast(_Short, prepared))

    def ended(self, lane: Lane, held_up_by: Prepared | None) -> None:
        """There is no lane any more."""
        session, self._session, self._lane = self._session, None, None
        self._not_before = max(self._not_before, time.monotonic() + _AGAIN_SECONDS)
        if held_up_by is not None:
            self._ban(cast(_Short, held_up_by))
            # It may be the server that is slow: the others have to show that it is not.
            self._ready.clear()
            self._suspects.clear()
        if session is not None:
            self._pool.discard(session)

    def make_room(self) -> None:
        """Somebody waits for a connection: the lane gives up its own."""
        if self._lane is not None:
            self._lane.leave()

    def counts(self) -> dict[str, int]:
        """The pool's, where a lane that nothing is under way on counts as idle."""
        counts = self._pool.counts()
        if self._lane is not None and not self._lane.busy:
            counts["inUse"] -= 1
            counts["idle"] += 1
        return counts

    def close(self) -> None:
        """For good."""
        self._not_before = math.inf
        if self._lane is not None:
            self._lane.end()

    def _take(self, key: Key, ready: Statement, trial: _Trial) -> bool:
        asked = ready.by_row
        assert asked is not None, "it has just answered"
        kinds = wire.accepted(asked.get_parameters())
        if kinds is None or not is_pure(key[0]):
            trial.not_before = math.inf
            return False
        del self._tried[key]
        if len(self._ready) >= _STATEMENTS:
            self._forget(next(iter(self._ready.values())))
        self._named += 1
        name = f"plan2_{self._named}"
        self._ready[key] = _Short(key, name, asked.get_query(), kinds, ready.columns)
        return True

    def _ban(self, short: _Short) -> None:
        if self._ready.get(short.key) is short:
            self._forget(short)
            self._try(short.key, _Trial(time.monotonic() + _BANNED_SECONDS))

    def _forget(self, short: _Short) -> None:
        del self._ready[short.key]
        self._suspects.discard(short)
        if self._lane is not None:
            self._lane.forget(short)

    def _try(self, key: Key, trial: _Trial) -> _Trial:
        self._tried[key] = trial
        if len(self._tried) > _STATEMENTS:
            self._tried.popitem(last=False)
        return trial

    def _opens(self, session: Session, now: float) -> bool:
        if self._lane is not None or self._opening or now < self._not_before:
            return False
        # One place has to be left for what is asked on a connection of its own.
        if self._pool.limit < 2:
            return False
        self._opening = True
        self._pool.background.spawn(self._open(session))
        return True

    async def _open(self, session: Session) -> None:
        # Whoever comes after a pooler's client gets what was SET, so nothing is.
        taken, self._session = session, None
        try:
            taken = await self._in_place_of(session)
            if self._not_before < math.inf:
                lane = Lane(taken.connection, self, asyncio.get_running_loop())
                self._lane, self._session, self._refused = lane, taken, 0
        except Problem:
            # A pooler that takes no settings will take none the next time.
            pause = min(_AGAIN_SECONDS * 2**self._refused, _LONGEST_PAUSE_SECONDS)
            self._refused += 1
            self._not_before = max(self._not_before, time.monotonic() + pause)
        finally:
            self._opening = False
            if self._session is None:
                self._pool.discard(taken)
