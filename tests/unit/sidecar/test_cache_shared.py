"""When a sidecar looks at the store: each second in use, seldom when nobody asks."""

from typing import Any

import pytest

from fixtures.fix_clock import HandClock
from plan2_contract.engines import Engine
from plan2_sidecar.cache.flights import Flights
from plan2_sidecar.cache.l1 import L1
from plan2_sidecar.cache.shared import DOZE_SECONDS, IDLE_SECONDS, Shared, StoreAway
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded, EngineUnavailable
from plan2_sidecar.fleet import Fleet


class Server:
    """A store that answers as Redis does, without a socket."""

    engine = Engine.DRAGONFLYDB

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.run_id = "one"
        self.asked: list[str] = []
        self.down = False

    async def track(self, deadline: Deadline) -> "Server.Channel":
        if self.down:
            raise EngineUnavailable("down")
        return Server.Channel()

    async def on(self, channel: Any, *commands: Any, deadline: Deadline) -> list[Any]:
        if self.down:
            raise EngineUnavailable("down")
        return [self._answer(*words) for words in commands]

    def _answer(self, name: str, *words: Any) -> Any:
        self.asked.append(name)
        match name, words:
            case "INFO", ("server",):
                return f"run_id:{self.run_id}\r\n".encode()
            case "INFO", _:
                return b""
            case "TIME", _:
                return [b"1", b"0"]
            case "GET", (key,):
                return self.held.get(key)
            case "EVAL", (_, 1, key, _, value):
                self.held[key] = value
                return 1
        raise AssertionError(name)

    def pool(self) -> dict[str, int]:
        return {}

    async def close(self, grace_seconds: float) -> None:
        """Nothing is open."""

    class Channel:
        """What Shared needs of one."""

        closed = False
        on_push: Any = None
        on_end: Any = None

        def close(self) -> None:
            if not self.closed:
                self.closed = True
                if self.on_end is not None:
                    self.on_end()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def l1(clock: HandClock) -> L1:
    return L1(100_000, clock, lambda: 0.0)


@pytest.fixture
def shared(server: Server, l1: L1, clock: HandClock) -> Shared:
    async def opener(engine: Engine, connection: Any) -> Any:
        return server

    fleet = Fleet(ConnectionEnvironment({"DRAGONFLY_HOST": "memory"}), opener=opener, clock=clock)
    fleet.refresh()
    return Shared(fleet, Database(fleet, migrates=False), l1, Flights(), clock)


async def test_a_store_in_use_is_looked_at_each_second(
    shared: Shared, server: Server, clock: HandClock
) -> None:
    await shared.link(Deadline.after(5, clock))
    await shared.ask(("TIME",), deadline=Deadline.after(5, clock))
    server.asked.clear()

    for _ in range(10):
        clock.now += 1
        await shared.look()

    assert server.asked == ["GET"] * 10


async def test_a_store_that_nobody_uses_is_looked_at_seldom_and_before_its_next_use(
    shared: Shared, server: Server, clock: HandClock
) -> None:
    await shared.ask(("TIME",), deadline=Deadline.after(5, clock))
    clock.now += IDLE_SECONDS + DOZE_SECONDS
    await shared.look()
    server.asked.clear()

    for _ in range(int(DOZE_SECONDS) - 1):
        clock.now += 1
        await shared.look()
    assert server.asked == []
    await shared.ask(("TIME",), deadline=Deadline.after(5, clock))

    assert server.asked == ["GET", "TIME"]


async def test_a_mark_that_is_ahead_makes_the_link_anew(
    shared: Shared, server: Server, clock: HandClock
) -> None:
    await shared.link(Deadline.after(5, clock))
    [(name, held)] = server.held.items()
    server.held[name] = held.replace(b"0 ", b"7 ", 1)

    await shared.look()
    assert not shared.linked
    await shared.link(Deadline.after(5, clock))

    assert shared.epoch.number == 7


async def test_another_run_of_the_server_raises_the_epoch(
    shared: Shared, server: Server, l1: L1, clock: HandClock
) -> None:
    link = await shared.link(Deadline.after(5, clock))
    l1.put(b"k", b"v")
    link.channel.close()
    assert len(l1) == 0
    server.run_id = "two"

    await shared.link(Deadline.after(5, clock))

    assert shared.epoch.number == 1


async def test_a_store_that_cannot_be_linked_is_left_alone_for_a_moment(
    shared: Shared, server: Server, clock: HandClock
) -> None:
    server.down = True
    for _ in range(3):
        with pytest.raises(StoreAway):
            await shared.link(Deadline.after(5, clock))
    server.down = False
    with pytest.raises(StoreAway):
        await shared.link(Deadline.after(5, clock))

    clock.now += 0.2

    assert await shared.link(Deadline.after(5, clock))


async def test_a_caller_whose_time_is_over_is_told_so(shared: Shared, clock: HandClock) -> None:
    with pytest.raises(DeadlineExceeded):
        await shared.link(Deadline(clock.now, clock))


async def test_a_read_that_a_write_overtook_is_not_remembered(shared: Shared, l1: L1) -> None:
    token = shared.reading(b"k")
    shared.touched(b"k")
    assert not shared.unchanged(b"k", token)

    again = shared.reading(b"k")
    assert shared.unchanged(b"k", again)
    assert not shared.unchanged(b"k", again)


async def test_what_the_server_tells_is_dropped(shared: Shared, l1: L1, clock: HandClock) -> None:
    link = await shared.link(Deadline.after(5, clock))
    for name in (b"a", b"b"):
        l1.put(name, b"1")
    told: Any = link.channel.on_push

    told([b"message", [b"a"]])
    assert len(l1) == 2
    told([b"invalidate", [b"a"]])
    assert l1.get(b"a") is None
    assert l1.get(b"b") is not None
    told([b"invalidate", None])
    assert len(l1) == 0
