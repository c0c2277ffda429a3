"""`python -m bench.tune`: load on each engine's pool, and the settings that the load speaks for.

--url URL        a running sidecar; its pools stay as they are, and the callers grow instead
--token-file F   its API token
--mix FILE       JSON lines, see `bench.mix`; without it a mix of reads that touch no table
--engines a,b    only these
--sizes 1,2,…    pool sizes; callers where --url is given
--callers 64     at once, where the pools grow
--rounds 3       of all sizes in turn; the median counts
--seconds 1      of load for each point of a round
--out FILE       the curves and the advice as JSON

Without --url engines and sidecar of its own are started, the sidecar anew for each pool size,
and CALLERS call at once. A recorded mix is sent again and again, writes too: give it a sidecar
whose data may change.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from bench import advice, knee, load, mix, stage, target  # noqa: E402
from bench.calls import Calls  # noqa: E402
from bench.knee import Point  # noqa: E402
from bench.mix import Request  # noqa: E402
from bench.stage import Refused  # noqa: E402
from bench.target import Target  # noqa: E402

DEFAULT = 20
SIZES = "1,2,4,8,16,20,32,64"
VARIABLES = {"postgresql": "POSTGRES_POOL_MAX", "clickhouse": "CLICKHOUSE_POOL_MAX"}
CACHED_TTL_MS = 5000
FEW_REFUSED = 0.01  # of the calls
PATIENCE = 20


def main() -> int:
    """0 unless nothing could be measured."""
    asked = _arguments()
    try:
        said = _own(asked) if asked.url is None else _running(asked)
    except (Refused, load.WrongAnswers, stage.NotStarted, mix.BadRecording, OSError) as error:
        print(f"the tune ended: {error}", file=sys.stderr)
        return 1
    if asked.out is not None:
        asked.out.write_text(json.dumps(said, indent=1) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.tune")
    parser.add_argument("--url")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--mix", type=Path)
    parser.add_argument("--engines", default="")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _sizes(asked: argparse.Namespace) -> list[int]:
    return sorted({int(size) for size in asked.sizes.split(",")})


def _running(asked: argparse.Namespace) -> dict[str, Any]:
    """A sidecar that somebody else started: the callers grow."""
    url = urlsplit(asked.url)
    token = asked.token_file.read_text().strip() if asked.token_file else ""
    at = Target(host=url.hostname or "127.0.0.1", port=url.port or 7420, token=token)
    pools = at.pools()
    # A Weaviate that we did not start has no collection of the synthetic mix.
    served = [engine for engine in pools if asked.mix or engine != "weaviate"]
    told, groups = _groups(asked, at, served)
    curves: dict[str, list[Point]] = {}
    for engine, requests in groups.items():
        _warm(at, requests)
        rounds = [
            [point(at, requests, size, size, asked.seconds) for size in _sizes(asked)]
            for _ in range(asked.rounds)
        ]
        curves[engine] = [knee.middle(column) for column in zip(*rounds, strict=True)]
    return _report(asked, at, groups, curves, told, pools)


def _own(asked: argparse.Namespace) -> dict[str, Any]:
    """Engines of our own: the pools grow, under the same callers."""
    names = [name for name in asked.engines.split(",") if name] or [*stage.ENGINES, "weaviate"]
    with (
        tempfile.TemporaryDirectory(prefix="plan2-tune-") as folder,
        contextlib.ExitStack() as stack,
    ):
        engines = stage.start_engines(stack, names)

        @contextlib.contextmanager
        def with_pools(size: int) -> Iterator[Target]:
            file = Path(folder) / f"connection-{size}.json"
            file.write_bytes(target.document(engines, size))
            with contextlib.ExitStack() as short:
                variables = {"PLAN2_CONNECTION_FILE": str(file)}
                server = stage.start_sidecar(short, Path(folder), {}, **variables)
                yield Target(host="127.0.0.1", port=server.port, token="")

        with with_pools(DEFAULT) as at:
            if "weaviate" in names and asked.mix is None:
                objects = [{"text": f"text {number}"} for number in range(100)]
                made = {"collection": mix.COLLECTION, "objects": objects}
                stage.query(at.port, "weaviate", made)
            told, groups = _groups(asked, at, names)
        curves = _by_size(asked, with_pools, groups)
        with with_pools(DEFAULT) as at:
            return _report(asked, at, groups, curves, told, dict.fromkeys(groups, DEFAULT))


def _by_size(
    asked: argparse.Namespace,
    with_pools: Callable[[int], contextlib.AbstractContextManager[Target]],
    groups: Mapping[str, Sequence[Request]],
) -> dict[str, list[Point]]:
    found: dict[str, dict[int, list[Point]]] = {engine: {} for engine in groups}
    for round_number in range(1, asked.rounds + 1):
        for size in _sizes(asked):
            print(f"round {round_number}, pools of {size}", file=sys.stderr, flush=True)
            with with_pools(size) as at:
                for engine, requests in groups.items():
                    _warm(at, requests)
                    measured = point(at, requests, size, asked.callers, asked.seconds)
                    found[engine].setdefault(size, []).append(measured)
    return {
        engine: [knee.middle(rounds) for rounds in sizes.values()]
        for engine, sizes in found.items()
    }


def point(at: Target, requests: Sequence[Request], size: int, callers: int, seconds: int) -> Point:
    """One point of a curve."""
    calls = Calls(host=at.host, port=at.port, path=requests[0].path, status=0)
    made = [request.on_wire(at.token) for request in requests]
    served = load.as_much_as_it_takes(calls, made, connections=callers, seconds=seconds)
    return Point(
        size=size,
        calls_per_second=served.calls_per_second,
        p99_us=served.p99_us,
        refused=served.refused > FEW_REFUSED,
    )


def _warm(at: Target, requests: Sequence[Request]) -> None:
    """Drivers loaded, a connection made; raises Refused where a call of the mix is wrong."""
    for request in requests[:3]:
        for _ in range(PATIENCE):
            try:
                at.send(request)
                break
            except Refused as error:
                # A pool of one is also the sidecar's own.
                if "bulkhead_full" not in str(error):
                    raise
                stage.settle(0.2)


def _groups(
    asked: argparse.Namespace, at: Target, engines: Sequence[str]
) -> tuple[list[tuple[advice.Told, int]], dict[str, list[Request]]]:
    """The mix by engine; what names none goes where the sidecar says it would."""
    wanted = [name for name in asked.engines.split(",") if name] or list(engines)
    requests = mix.recorded(asked.mix) if asked.mix else mix.synthetic(wanted)
    groups = mix.by_pool(requests)
    told = at.told(groups.pop(mix.ROUTED, []))
    for told_of, of_query in told:
        if told_of.database is not None:
            groups.setdefault(told_of.database, []).extend(of_query)
    kept = {engine: groups[engine] for engine in wanted if engine in groups}
    return [(each, len(of_query)) for each, of_query in told], kept


def _report(
    asked: argparse.Namespace,
    at: Target,
    groups: Mapping[str, Sequence[Request]],
    curves: Mapping[str, Sequence[Point]],
    told: Sequence[tuple[advice.Told, int]],
    pools: Mapping[str, int],
) -> dict[str, Any]:
    """Print the curves and the advice; return them."""
    said: dict[str, Any] = {"engines": {}}
    by_pool = asked.url is None
    what = f"pool size, {asked.callers} callers" if by_pool else "callers, the pool as it is"
    would_set = []
    for engine, points in curves.items():
        found = knee.find(points)
        now = pools.get(engine, DEFAULT)
        print(f"\n{engine} ({what})\n{knee.drawn(points, found, now)}")
        line = pool_line(engine, points, now, by_pool=by_pool)
        reads = [request for request in groups[engine] if at.is_read(request)]
        cached = _cached(at, engine, reads, asked.seconds)
        print(f"{line}\n{cached['advice']}")
        would_set.append(setting(engine, points, now))
        if cached.get("ttlMs") is not None:
            would_set.append(f"options.cache.ttlMs={cached['ttlMs']} for reads of {engine}")
        said["engines"][engine] = {
            "curve": [asdict(each) for each in points],
            "knee": None if found is None else asdict(found),
            "holds": knee.holds(points, now),
            "advice": line,
            "cache": cached,
        }
    said["routing"] = [advice.hint(each, times) for each, times in told]
    said["wouldSet"] = would_set
    hints = said["routing"] or ["every query of the mix names its engine; nothing to do"]
    print("\n".join(["", "routing", *hints, "", "would set", *would_set]))
    return said


def setting(engine: str, points: Sequence[Point], now: int) -> str:
    """What to set: the knee, and what is set now where the engine itself is the limit."""
    found = knee.find(points)
    size = now if found is None or found.overloaded else found.size
    return f"{_variable(engine)}={size}"


def _variable(engine: str) -> str:
    return VARIABLES.get(engine, f"spec.{engine}.pool.max")


def pool_line(engine: str, points: Sequence[Point], now: int, *, by_pool: bool) -> str:
    """Whether the size that is set holds, and where the knee is."""
    found = knee.find(points)
    if found is None:
        return f"{_variable(engine)}: nothing was measured"
    if found.overloaded:
        away = "calls were turned away at every size, so the engine is the limit"
        return f"{_variable(engine)}={now} stays: {away}"
    stands = "holds" if knee.holds(points, now) else "does not hold"
    line = f"{_variable(engine)}={now} {stands}; the knee is at {found.size}"
    if found.at_edge and found.size >= now and not by_pool:
        return f"{line} callers: it may be the pool that holds them back; raise it, measure again"
    return f"{line}, the largest measured" if found.at_edge else line


def _cached(at: Target, engine: str, reads: Sequence[Request], seconds: int) -> dict[str, Any]:
    """The TTL that the mix speaks for, and what the sidecar serves with and without."""
    if not reads:
        return {"advice": "cache: no reads in the mix"}
    found = advice.ttl(engine, reads)
    shares = ", ".join(f"{each} ms {share:.0%}" for each, share in found.hits.items())
    curve = f"hits by TTL: {shares}"
    if engine in advice.UNCACHED:
        return {"advice": f"cache: {engine} needs none", "ttlMs": None, "hits": dict(found.hits)}
    if found.ttl_ms is None:
        text = f"cache: too few reads come twice; {curve}"
        return {"advice": text, "ttlMs": None, "hits": dict(found.hits)}
    without = point(at, reads, 16, 16, seconds).calls_per_second
    kept = [target.cached(read, max(found.ttl_ms, CACHED_TTL_MS)) for read in reads]
    within = point(at, kept, 16, 16, seconds).calls_per_second
    text = (
        f'cache: "options": {{"cache": {{"ttlMs": {found.ttl_ms}}}}} where so old an answer '
        f"will do; {curve}; {without:,.0f}/s without, {within:,.0f}/s with"
    )
    return {"advice": text, "ttlMs": found.ttl_ms, "hits": dict(found.hits)}


if __name__ == "__main__":
    sys.exit(main())
