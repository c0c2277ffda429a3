"""The limits' Lua: what each script counts, in both dialects, on a clock moved by hand.

The store they run on refuses globals, undeclared keys and floats (`fixtures/lua_store.py`).
"""

import random
import re
from collections import deque

import pytest

from fixtures.lua_store import LuaStore
from plan2_sidecar.limits import scripts
from plan2_sidecar.limits.limiter import BUCKETS
from plan2_sidecar.store import Script

KEY = "p2:l:fixed-window:1000:c"
WINDOW = 1000


@pytest.fixture(params=["redis", "dragonfly"])
def store(request: pytest.FixtureRequest) -> LuaStore:
    return LuaStore(request.param)


def grant(
    store: LuaStore, wanted: int, *, limit: int = 100, least: int = 1, demand: int = 0, n: int = 1
) -> list[int]:
    reply: list[int] = store.run(scripts.GRANT, KEY, limit, wanted, least, demand, n, WINDOW)
    return reply


def slide(store: LuaStore, *, limit: int, cost: int = 1, taken: int | None = None) -> list[int]:
    taken = cost if taken is None else taken
    size = -(-WINDOW // BUCKETS)
    reply: list[int] = store.run(scripts.SLIDING_WINDOW, KEY, limit, cost, taken, WINDOW, size)
    return reply


def cell(
    store: LuaStore, *, limit: int, cost: int = 1, taken: int | None = None, window: int = WINDOW
) -> list[int]:
    taken = cost if taken is None else taken
    reply: list[int] = store.run(scripts.GCRA, KEY, limit, cost, taken, window)
    return reply


@pytest.mark.parametrize("script", scripts.ALL, ids=["grant", "back", "slide", "gcra", "present"])
def test_a_script_names_one_key_and_no_flags(script: Script) -> None:
    keys = set(re.findall(r"KEYS\[\d+\]", script.text))
    calls = re.findall(r"redis\.call\('(\w+)'(?:, ([^,)]+))?", script.text)

    assert keys == {"KEYS[1]"}
    assert {key for name, key in calls if name != "TIME"} == {"KEYS[1]"}
    assert "#!lua" not in script.text
    assert "--!df" not in script.text
    assert "pcall" not in script.text
    assert not re.search(r"//|<<|>>", script.text), "Lua 5.1 has no such operator"


def test_a_window_starts_at_the_first_hit_and_ends_by_itself(store: LuaStore) -> None:
    started = store.now_ms

    first = grant(store, 1)
    store.now_ms += 400
    second = grant(store, 1)
    store.now_ms += 601
    third = grant(store, 1)

    assert first == [1, 1, 1000, started + 1000]
    assert second == [1, 2, 600, started + 1000]
    assert third == [1, 1, 1000, started + 2001]


def test_a_grant_is_never_more_than_what_is_left(store: LuaStore) -> None:
    assert grant(store, 7, limit=10)[:2] == [7, 7]
    assert grant(store, 7, limit=10)[:2] == [3, 10]
    assert grant(store, 7, limit=10)[:2] == [0, 10]


def test_a_grant_that_would_serve_nobody_is_not_made(store: LuaStore) -> None:
    grant(store, 8, limit=10)

    assert grant(store, 5, limit=10, least=5)[:2] == [0, 8]
    assert grant(store, 5, limit=10, least=2)[:2] == [2, 10]


@pytest.mark.parametrize(
    ("left", "sidecars", "demand", "granted"),
    [
        (100, 3, 1000, 16),
        (1000, 3, 1000, 166),
        (100, 10, 1000, 5),
        (100, 3, 4, 4),
        (5, 3, 1000, 1),
        (100, 1, 0, 1),
    ],
)
def test_a_lease_is_a_share_of_what_is_left_and_no_more_than_the_demand(
    store: LuaStore, left: int, sidecars: int, demand: int, granted: int
) -> None:
    assert grant(store, 1, limit=left, demand=demand, n=sidecars)[0] == granted


def test_looking_starts_no_window(store: LuaStore) -> None:
    assert grant(store, 0, demand=10) == [0, 0, -2, -2]
    assert not store.values


def test_a_lower_limit_is_over_when_the_counter_is_beyond_it(store: LuaStore) -> None:
    grant(store, 60, limit=100)

    assert grant(store, 1, limit=10)[:2] == [0, 60]


def test_tokens_go_back_into_their_own_window_alone(store: LuaStore) -> None:
    _, _, _, window = grant(store, 10, limit=10)

    assert store.run(scripts.GIVE_BACK, KEY, 4, window) == 1
    assert grant(store, 9, limit=10)[:2] == [4, 10]
    store.now_ms += 1001
    assert store.run(scripts.GIVE_BACK, KEY, 4, window) == 0
    grant(store, 10, limit=10)
    assert store.run(scripts.GIVE_BACK, KEY, 4, window) == 0
    assert store.values[KEY] == "10"


def test_a_window_given_back_whole_keeps_its_end(store: LuaStore) -> None:
    _, _, _, window = grant(store, 3)

    store.run(scripts.GIVE_BACK, KEY, 3, window)
    store.now_ms += 300

    assert grant(store, 1)[1:] == [1, 700, window]


def test_a_sliding_window_frees_what_is_older_than_the_window(store: LuaStore) -> None:
    store.now_ms = 1_764_000_000_000
    moments = (0, 100, 500, 600, 1049, 1050, 1150, 1151, 1549, 1550)
    started = store.now_ms
    allowed = []
    for moment in moments:
        store.now_ms = started + moment
        allowed.append(slide(store, limit=3)[0])

    # A log would free the hit of 0 at 1000; counted in buckets of 50 it is free at 1050.
    assert allowed == [1, 1, 1, 0, 0, 1, 1, 0, 0, 1]


def test_a_sliding_window_says_when_to_come_back(store: LuaStore) -> None:
    store.now_ms = 1_764_000_000_000
    slide(store, limit=3)
    store.now_ms += 200
    slide(store, limit=3, cost=2)

    assert slide(store, limit=3) == [0, 3, 1050, 850]
    assert slide(store, limit=3, cost=2) == [0, 3, 1050, 1050]
    assert slide(store, limit=3, cost=4, taken=0) == [0, 3, 1050, -1]
    store.now_ms += 850
    assert slide(store, limit=3, taken=0)[0] == 1
    assert slide(store, limit=3)[:2] == [1, 3]


def test_a_sliding_window_never_holds_more_than_the_limit(store: LuaStore) -> None:
    chance = random.Random(7)
    admitted: deque[int] = deque()
    refused_by_a_log = 0
    for _ in range(4000):
        store.now_ms += chance.choice((0, 1, 3, 17, 60))
        while admitted and admitted[0] <= store.now_ms - WINDOW:
            admitted.popleft()
        if slide(store, limit=40)[0]:
            admitted.append(store.now_ms)
        else:
            refused_by_a_log += len(admitted) >= 40

        assert len(admitted) <= 40
    assert refused_by_a_log > 100


def test_what_a_log_of_a_twentieth_more_admits_a_sliding_window_admits(store: LuaStore) -> None:
    chance = random.Random(11)
    admitted: deque[int] = deque()
    for _ in range(4000):
        store.now_ms += chance.choice((0, 1, 3, 17, 60))
        while admitted and admitted[0] <= store.now_ms - WINDOW - WINDOW // BUCKETS:
            admitted.popleft()
        log_admits = len(admitted) < 40
        allowed = slide(store, limit=40)[0]
        if allowed:
            admitted.append(store.now_ms)

        assert allowed or not log_admits


def test_a_sliding_window_keeps_no_more_than_its_buckets(store: LuaStore) -> None:
    for _ in range(500):
        store.now_ms += 37
        slide(store, limit=1000)

    assert len(store.values[KEY]) <= BUCKETS + 1


# CL.THROTTLE key 2 3 18: [limited, limit, remaining, retry s, reset s], as Dragonfly answers.
def test_a_burst_is_paced_as_cl_throttle_paces_it(store: LuaStore) -> None:
    replies = [cell(store, limit=3, window=18_000) for _ in range(4)]

    assert [reply[0] for reply in replies] == [1, 1, 1, 0]
    assert [reply[1] for reply in replies] == [2, 1, 0, 0]
    assert [reply[2] for reply in replies] == [6000, 12_000, 18_000, 18_000]
    assert replies[3][3] == 5994  # six seconds, less the thousandth that rounding is given


def test_a_cell_comes_back_with_each_share_of_the_window(store: LuaStore) -> None:
    for _ in range(10):
        assert cell(store, limit=10)[0]
    refused = cell(store, limit=10)
    store.now_ms += 100
    assert cell(store, limit=10)[0]
    assert not cell(store, limit=10)[0]
    store.now_ms += 250

    assert refused == [0, 0, 1000, 100]
    assert [cell(store, limit=10)[0] for _ in range(3)] == [1, 1, 0]


def test_cells_in_parts_of_a_millisecond_are_not_lost(store: LuaStore) -> None:
    admitted = sum(cell(store, limit=7777)[0] for _ in range(8000))
    store.now_ms += 1
    later = sum(cell(store, limit=7777)[0] for _ in range(100))

    assert admitted == 7777
    assert later in (7, 8)


def test_looking_at_cells_takes_none(store: LuaStore) -> None:
    assert cell(store, limit=3, taken=0) == [1, 3, 0, 0]
    assert not store.values
    cell(store, limit=3, cost=2)
    assert cell(store, limit=3, cost=2, taken=0)[:2] == [0, 1]
    assert cell(store, limit=3)[:2] == [1, 0]


def test_a_clock_set_back_lengthens_no_wait_beyond_the_window(store: LuaStore) -> None:
    for _ in range(3):
        cell(store, limit=3)
    store.now_ms -= 3_600_000

    refused = cell(store, limit=3)

    assert refused[0] == 0
    assert refused[3] <= WINDOW


def test_sidecars_that_fell_silent_are_not_counted(store: LuaStore) -> None:
    key = "p2:sidecars"
    assert store.run(scripts.PRESENT, key, "a", 15_000) == 1
    store.now_ms += 5000
    assert store.run(scripts.PRESENT, key, "b", 15_000) == 2
    assert store.run(scripts.PRESENT, key, "b", 15_000) == 2
    store.now_ms += 10_000
    assert store.run(scripts.PRESENT, key, "b", 15_000) == 1
