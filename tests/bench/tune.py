"""`python -m bench.tune`: load on each engine's pool, and the settings that the load speaks for.

--url URL        a running sidecar; its pools stay as they are, and the callers grow instead
--token-file F   its API token
--mix FILE       JSON lines, see `bench.mix`; without it a mix of reads that touch no table
--engines a,b    only these
--sizes 1,2,…    pool sizes; callers where --url is given
--seconds 1      of load for each point
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
CALLERS = 64
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
    curves: dict[str, list[Point]] = {engine: [] for engine in groups}
    for engine, requests in groups.items():
        _warm(at, requests)
        for size in _sizes(asked):
            curves[engine].append(point(at, requests, size, size, asked.seconds))
    return _report(at, groups, curves, told, pools, by_pool=False, seconds=asked.seconds)


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
        curves = _by_size(with_pools, groups, _sizes(asked), asked.seconds)
        with with_pools(DEFAULT) as at:
            pools = dict.fromkeys(groups, DEFAULT)
            return _report(at, groups, curves, told, pools, by_pool=True, seconds=asked.seconds)


def _by_size(
    with_pools: Callable[[int], contextlib.AbstractContextManager[Target]],
    groups: Mapping[str, Sequence[Request]],
    sizes: Sequence[int],
    seconds: int,
) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {engine: [] for engine in groups}
    for size in sizes:
        with with_pools(size) as at:
            for engine, requests in groups.items():
                _warm(at, requests)
                measured = point(at, requests, size, CALLERS, seconds)
                curves[engine].append(measured)
                print(f"{engine}, pool of {size}: {measured.calls_per_second:,.0f}/s", flush=True)
    return curves


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
    at: Target,
    groups: Mapping[str, Sequence[Request]],
    curves: Mapping[str, Sequence[Point]],
    told: Sequence[tuple[advice.Told, int]],
    pools: Mapping[str, int],
    *,
    by_pool: bool,
    seconds: int,
) -> dict[str, Any]:
    """Print the curves and the advice; return them."""
    said: dict[str, Any] = {"engines": {}, "routing": []}
    what = f"pool size, {CALLERS} callers" if by_pool else "callers, the pool as it is"
    for engine, points in curves.items():
        found = knee.find(points)
        print(f"\n{engine} ({what})\n{knee.drawn(points, found, pools.get(engine))}")
        line = pool_line(engine, points, pools.get(engine, DEFAULT), by_pool=by_pool)
        print(line)
        reads = [request for request in groups[engine] if at.is_read(request)]
        cached = _cached(at, engine, reads, seconds)
        print(cached["advice"])
        said["engines"][engine] = {
            "curve": [asdict(each) for each in points],
            "knee": None if found is None else asdict(found),
            "advice": line,
            "cache": cached,
        }
    print("\nrouting")
    for each, times in told:
        said["routing"].append(advice.hint(each, times))
        print(said["routing"][-1])
    if not told:
        print("every query of the mix names its engine; nothing to do")
    return said


def pool_line(engine: str, points: Sequence[Point], now: int, *, by_pool: bool) -> str:
    """The size to set, and whether the one that is set holds."""
    found = knee.find(points)
    name = VARIABLES.get(engine, f"pool.max of {engine}")
    if found is None:
        return f"{name}: every size turned calls away; the engine is slower than the mix asks"
    stands = f"{name}={now} holds" if knee.holds(points, now) else f"{name}={now} does not hold"
    if found.at_edge and found.size >= now and not by_pool:
        return f"{stands}; still faster at {found.size} callers: raise it and measure again"
    beyond = " (or more: the largest measured)" if found.at_edge else ""
    return f"{stands}; the knee is at {found.size}{beyond}: set {name}={found.size}"


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
