"""The cache in the process: bounded by bytes, fresh for a moment, the least used goes first."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.fix_clock import HandClock
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.l1 import L1, OVERHEAD_BYTES


@pytest.fixture
def l1(clock: HandClock) -> L1:
    return L1(1_000_000, clock, lambda: 0.0)


def test_an_entry_is_fresh_for_a_second(l1: L1, clock: HandClock) -> None:
    l1.put(b"k", b"v")

    clock.now += 0.999
    held = l1.get(b"k")
    assert held is not None
    assert held.value == b"v"

    clock.now += 0.001
    assert l1.get(b"k") is None
    assert l1.bytes == 0


def test_chance_only_shortens_an_entrys_time(clock: HandClock) -> None:
    l1 = L1(1_000_000, clock, lambda: 1.0)
    l1.put(b"k", b"v")

    clock.now += 0.9

    assert l1.get(b"k") is None


def test_an_entry_never_outlives_its_value(l1: L1, clock: HandClock) -> None:
    l1.put(b"k", b"v", expires_at=clock.now + 0.25)
    l1.put(b"p", b"v", expires_at=clock.now + 5, pinned=True)

    clock.now += 0.25
    assert l1.get(b"k") is None
    clock.now += 4.5
    assert l1.get(b"p") is not None
    clock.now += 0.25
    assert l1.get(b"p") is None


def test_the_seconds_left_are_rounded_up(l1: L1, clock: HandClock) -> None:
    l1.put(b"k", b"v", expires_at=clock.now + 1.2)
    l1.put(b"for ever", b"v")

    held, unending = l1.get(b"k"), l1.get(b"for ever")

    assert held is not None
    assert unending is not None
    assert held.ttl_seconds(clock.now) == 2
    clock.now += 0.5
    assert held.ttl_seconds(clock.now) == 1
    assert unending.ttl_seconds(clock.now) is None


def test_the_least_recently_used_goes_first(clock: HandClock) -> None:
    size = OVERHEAD_BYTES + 101
    l1 = L1(size * 4, clock, lambda: 0.0)
    for name in (b"a", b"b", b"c", b"d"):
        l1.put(name, b"x" * 100)
    l1.get(b"a")

    l1.put(b"e", b"x" * 100)

    assert [name for name in (b"a", b"b", b"c", b"d", b"e") if l1.get(name)] == [
        b"a",
        b"c",
        b"d",
        b"e",
    ]


def test_one_entry_may_not_push_all_others_out(clock: HandClock) -> None:
    l1 = L1(10_000, clock, lambda: 0.0)
    l1.put(b"small", b"x")

    assert not l1.put(b"large", b"x" * 2_500)
    assert l1.get(b"small") is not None
    assert not L1(0, clock).put(b"k", b"")


def test_what_was_there_goes_when_its_successor_is_too_large(clock: HandClock) -> None:
    l1 = L1(10_000, clock, lambda: 0.0)
    l1.put(b"k", b"old")

    l1.put(b"k", b"x" * 10_000)

    assert l1.get(b"k") is None


def test_clearing_may_keep_what_exists_nowhere_else(l1: L1) -> None:
    key = Key(Kind.CACHE, "k")
    l1.put(b"copy", b"1")
    l1.put(key, b"2", pinned=True)
    l1.put(Key(Kind.CACHE, "gone"), None, pinned=True)

    l1.clear(pinned=False)

    assert l1.get(b"copy") is None
    assert l1.get(key) is not None
    assert len(l1) == 2
    l1.clear()
    assert (len(l1), l1.bytes) == (0, 0)


_NAMES = st.sampled_from([bytes([letter]) for letter in range(97, 107)])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _NAMES, st.integers(0, 3000), st.booleans()),
        st.tuples(st.just("get"), _NAMES, st.just(0), st.just(False)),
        st.tuples(st.just("drop"), _NAMES, st.just(0), st.just(False)),
        st.tuples(st.just("clear"), _NAMES, st.just(0), st.booleans()),
        st.tuples(st.just("wait"), _NAMES, st.integers(0, 2000), st.just(False)),
    ),
    max_size=60,
)


@settings(derandomize=True, deadline=None)
@given(_STEPS)
def test_the_bytes_are_counted_right_and_never_too_many(
    steps: list[tuple[str, bytes, int, bool]],
) -> None:
    clock = HandClock()
    l1 = L1(8_000, clock, lambda: 0.5)
    written: dict[bytes, int] = {}
    for what, name, number, flag in steps:
        match what:
            case "put":
                kept = l1.put(name, b"x" * number, pinned=flag, expires_at=clock.now + 3)
                written[name] = number if kept else -1
            case "get":
                held = l1.get(name)
                assert held is None or len(held.value or b"") == written[name]
            case "drop":
                l1.drop(name)
                assert l1.get(name) is None
            case "clear":
                l1.clear(pinned=flag)
            case _:
                clock.now += number / 1000
        entries = list(l1._entries.values())
        assert l1.bytes == sum(entry.size for entry in entries) <= 8_000
        assert all(entry.fresh_until <= entry.expires_at < math.inf for entry in entries)
