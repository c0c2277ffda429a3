"""What stands in the store: names, values with their age, the marker of the store's run."""

import pytest

from plan2_sidecar.cache import entry, incarnation, sweep
from plan2_sidecar.cache.incarnation import Marker, Run
from plan2_sidecar.cache.keys import Key, Kind

NOTHING = b""


@pytest.mark.parametrize(
    ("key", "epoch", "name"),
    [
        (Key(Kind.CACHE, "a:b"), 0, b"p2:c:a:b"),
        (Key(Kind.SESSION, "x"), 0, b"p2:s:x"),
        (Key(Kind.CACHE, "ü"), 3, b"p2@3:c:\xc3\xbc"),
    ],
    ids=["cache", "session", "epoch"],
)
def test_a_key_carries_the_epoch(key: Key, epoch: int, name: bytes) -> None:
    assert key.at(epoch) == name


@pytest.mark.parametrize(
    ("name", "older"),
    [
        (b"p2:c:k", True),
        (b"p2@2:s:k", True),
        (b"p2@3:q:k", False),
        (b"p2@4:r:k", False),
        (b"p2:l:fixed-window:1000:k", False),
        (b"p2:epoch", False),
        (b"p2:sidecars", False),
        (b"p2x:c:k", False),
        (b"c:p2:c:k", False),
    ],
)
def test_the_sweep_takes_what_an_older_epoch_left_and_nothing_else(
    name: bytes, older: bool
) -> None:
    assert sweep.is_older(name, 3) is older


def test_a_value_comes_back_with_its_age() -> None:
    held = entry.encode(b'{"a": 1}', 5000)

    kept = entry.decode(held, entry.total_ms(5000) - 1500)

    assert kept is not None
    assert (kept.value, kept.ttl_ms, kept.age_ms) == (b'{"a": 1}', 5000, 1500)
    assert kept.tag == entry.tag(held)


def test_no_two_values_or_leases_look_alike() -> None:
    tags = {entry.tag(entry.encode(b"1", 1)) for _ in range(100)}
    tags |= {entry.lease() for _ in range(100)}

    assert len(tags) == 200
    assert {len(tag) for tag in tags} == {10}


@pytest.mark.parametrize("held", [NOTHING, b"{}", b'"x"', b"\x00V", entry.lease()])
def test_what_is_no_value_is_none(held: bytes) -> None:
    assert entry.decode(held, 1000) is None


@pytest.mark.parametrize(
    ("age_ms", "asked_ms", "fresh", "revalidates", "consoles"),
    [
        (0, 1000, True, True, True),
        (999, 1000, True, True, True),
        (1000, 1000, False, True, True),
        (1999, 1000, False, True, True),
        (2000, 1000, False, False, True),
        (10_999, 1000, False, False, True),
        (11_000, 1000, False, False, False),
        (150, 100, False, True, True),
        (1500, 60_000, False, True, True),
    ],
)
def test_how_old_a_value_may_be(
    age_ms: int, asked_ms: int, fresh: bool, revalidates: bool, consoles: bool
) -> None:
    kept = entry.Kept(b"", 1000, age_ms, b"")

    said = (kept.fresh(asked_ms), kept.revalidates(asked_ms), kept.consoles(asked_ms))

    assert said == (fresh, revalidates, consoles)


def test_the_store_keeps_nothing_longer_than_dragonfly_can() -> None:
    assert entry.total_ms(31_536_000_000) == 268_435_455_000


def replies(server: str, replication: str = "", now: int = 0, marker: bytes | None = None) -> list:
    return [server.encode(), replication.encode(), [str(now).encode(), b"0"], marker]


def test_redis_says_which_run_it_is() -> None:
    run, marker = incarnation.read(replies("# Server\r\nrun_id:abc\r\nuptime_in_seconds:5\r\n"))

    assert (run, marker) == (Run("abc"), None)


def test_dragonfly_is_known_by_its_replication_id_and_its_start() -> None:
    def run_of(replid: str, now: int, uptime: int) -> Run:
        server = f"uptime_in_seconds:{uptime}\r\n"
        found, _ = incarnation.read(replies(server, f"master_replid:{replid}\r\n", now))
        return found

    assert run_of("a", 1000, 10).same(run_of("a", 2000, 1009))
    assert not run_of("a", 1000, 10).same(run_of("a", 2000, 10))
    assert not run_of("a", 1000, 10).same(run_of("b", 1000, 10))


def test_the_marker_comes_back() -> None:
    marker = Marker(Run("abc", 17), 3)

    assert incarnation.decode(marker.encode()) == marker


@pytest.mark.parametrize("held", [None, b"", b"1 2", b"x 1 abc", b"1 2 3 4", b"\xff"])
def test_anything_else_is_no_marker(held: bytes | None) -> None:
    assert incarnation.decode(held) is None
