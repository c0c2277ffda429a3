"""The knee of a curve, the mix that is sent, and what is advised."""

from pathlib import Path

import pytest

from bench import advice, knee, mix, tune
from bench.knee import Point
from bench.mix import BadRecording, Request


def curve(*points: tuple[int, float, float]) -> list[Point]:
    return [Point(size=size, calls_per_second=calls, p99_us=p99) for size, calls, p99 in points]


BENDS = curve((1, 1000, 900), (2, 1900, 1000), (4, 3000, 1100), (8, 3050, 1500), (20, 2950, 1600))
RISES = curve((1, 100, 900), (4, 400, 900), (20, 2000, 900))


def test_the_knee_is_the_smallest_size_with_nearly_the_best_throughput() -> None:
    found = knee.find(BENDS)
    assert found is not None
    assert (found.size, found.best, found.at_edge) == (4, 3050, False)


def test_a_curve_that_still_rises_has_its_knee_at_the_edge() -> None:
    found = knee.find(RISES)
    assert found is not None
    assert (found.size, found.at_edge) == (20, True)


def test_sizes_that_turn_calls_away_are_no_candidates() -> None:
    refusing = [Point(size=1, calls_per_second=9000, p99_us=1, refused=True), *BENDS[1:]]
    found = knee.find(refusing)
    assert found is not None
    assert found.size == 4
    assert found.overloaded is False


def test_where_every_size_turned_calls_away_the_engine_is_the_limit() -> None:
    refusing = [
        Point(size=size, calls_per_second=calls, p99_us=1, refused=True)
        for size, calls in ((1, 100), (20, 101))
    ]
    found = knee.find(refusing)
    assert found is not None
    assert (found.size, found.overloaded) == (1, True)
    assert "the engine is the limit" in tune.pool_line("mongodb", refusing, 20, by_pool=True)
    assert tune.setting("mongodb", refusing, 20) == "spec.mongodb.pool.max=20"


def test_no_points_have_no_knee() -> None:
    assert knee.find([]) is None


def test_several_rounds_count_by_their_median() -> None:
    rounds = curve((4, 100, 9), (4, 5000, 1), (4, 90, 8))
    assert knee.middle(rounds) == Point(size=4, calls_per_second=100, p99_us=8)


def test_a_default_holds_where_it_gives_nearly_the_best() -> None:
    assert knee.holds(BENDS, 20) is True
    assert knee.holds(BENDS, 2) is False
    assert knee.holds(RISES, 4) is False


def test_a_default_with_a_long_tail_does_not_hold() -> None:
    assert knee.holds(curve((4, 3000, 1000), (20, 3000, 9000)), 20) is False


def test_the_curve_marks_the_knee_and_what_is_set_now() -> None:
    drawn = knee.drawn(BENDS, knee.find(BENDS), 20).splitlines()
    assert drawn[2].endswith("<- knee")
    assert drawn[4].endswith("<- default")


def test_the_advice_names_the_setting() -> None:
    assert tune.pool_line("postgresql", BENDS, 20, by_pool=True) == (
        "POSTGRES_POOL_MAX=20 holds; the knee is at 4"
    )
    assert tune.setting("postgresql", BENDS, 20) == "POSTGRES_POOL_MAX=4"
    assert tune.pool_line("mongodb", RISES, 4, by_pool=True) == (
        "spec.mongodb.pool.max=4 does not hold; the knee is at 20, the largest measured"
    )


def test_callers_that_a_pool_holds_back_are_told_to_raise_it() -> None:
    assert "raise it, measure again" in tune.pool_line("postgresql", RISES, 20, by_pool=False)


def test_a_recording_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "mix.jsonl"
    file.write_text(
        '{"at": 1.5, "path": "/api/v2/query", "body": {"query": "SELECT 1"}}\n'
        "\n"
        '{"path": "/api/v2/cache/a", "headers": {"Plan2-Namespace": "shop"}}\n'
    )
    asked, cached = mix.recorded(file)
    assert (asked.method, asked.at, asked.pool) == ("POST", 1.5, mix.ROUTED)
    assert (cached.method, cached.pool) == ("GET", "dragonflydb")
    assert b"Plan2-Namespace: shop\r\nAuthorization: Bearer secret\r\n" in cached.on_wire("secret")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no request"),
        ('{"method": "GET"}', "line 2 is no request: KeyError"),
        ('{"path": "api"}', "does not begin with /"),
        ("[]", "line 2 is no request"),
    ],
)
def test_a_line_that_is_no_request_is_named(line: str, said: str) -> None:
    with pytest.raises(BadRecording, match=said):
        mix.read(['{"path": "/livez"}', line])


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(BadRecording, match="no request"):
        mix.read(["", "\n"])


def test_the_synthetic_mix_is_the_same_each_time_and_has_every_engine() -> None:
    engines = ["postgresql", "dragonflydb", "clickhouse", "arangodb", "mongodb", "weaviate"]
    made = mix.synthetic(engines)
    assert made == mix.synthetic(engines)
    assert set(mix.by_pool(made)) == {*engines, mix.ROUTED}


def read_at(at: float, key: int) -> Request:
    body = {"query": "SELECT $1", "params": [key], "targetDatabase": "postgresql"}
    return Request(path="/api/v2/query", method="POST", body=body, at=at)


def test_a_ttl_answers_what_comes_again_in_time() -> None:
    reads = [read_at(0.0, 1), read_at(0.5, 1), read_at(2.0, 1), read_at(2.1, 2)]
    assert advice.hit_shares(reads, [100, 1000, 5000]) == {100: 0.0, 1000: 0.25, 5000: 0.5}


def test_the_shortest_ttl_that_gives_nearly_all_is_advised() -> None:
    reads = [read_at(number * 0.5, number % 2) for number in range(200)]
    found = advice.ttl("postgresql", reads)
    assert found.ttl_ms == 30_000
    assert advice.ttl("dragonflydb", reads).ttl_ms is None


def test_reads_that_never_come_twice_are_not_cached() -> None:
    assert advice.ttl("postgresql", [read_at(n, n) for n in range(50)]).ttl_ms is None


def test_a_query_that_cannot_be_told_apart_is_hinted_at() -> None:
    told = advice.Told(
        query='"SELECT 1"', database=None, rung=None, candidates=("postgresql", "clickhouse")
    )
    assert "cannot be told apart (postgresql, clickhouse)" in advice.hint(told, 3)
