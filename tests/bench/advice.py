"""What a mix says about caching and routing, by counting; nothing is measured here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.mix import Request

TTLS_MS = (100, 1000, 5000, 30_000, 300_000)
UNCACHED = frozenset({"dragonflydb", "redis"})
WORTH_IT = 0.5  # of the reads answered without the engine
NEARLY = 0.95  # of what the longest TTL would give


@dataclass(frozen=True, kw_only=True)
class TtlAdvice:
    """`hits` is the share of an engine's reads that a TTL (ms) would answer; `ttl_ms` the
    shortest that gives nearly what the longest gives, None where caching is not worth it."""

    engine: str
    reads: int
    hits: Mapping[int, float]
    ttl_ms: int | None


def hit_shares(reads: Sequence[Request], ttls: Sequence[int] = TTLS_MS) -> dict[int, float]:
    """The recording played through a cache of each TTL: the first read of a key fills it."""
    shares = {}
    for ttl in ttls:
        filled: dict[str, float] = {}
        hits = 0
        for read in sorted(reads, key=lambda each: each.at):
            key = json.dumps([read.path, read.body], sort_keys=True)
            if read.at < filled.get(key, float("-inf")) + ttl / 1000:
                hits += 1
            else:
                filled[key] = read.at
        shares[ttl] = hits / len(reads) if reads else 0.0
    return shares


def ttl(engine: str, reads: Sequence[Request]) -> TtlAdvice:
    """For the reads of one engine."""
    hits = hit_shares(reads)
    best = max(hits.values())
    chosen = next(each for each, share in hits.items() if share >= NEARLY * best)
    keep = engine not in UNCACHED and best >= WORTH_IT
    return TtlAdvice(engine=engine, reads=len(reads), hits=hits, ttl_ms=chosen if keep else None)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the sidecar said about one query that named no engine."""

    query: str
    database: str | None
    rung: str | None
    candidates: tuple[str, ...]


def hint(told: Told, times: int) -> str:
    """A line for one query, with how often the mix has it."""
    text = told.query if len(told.query) <= 60 else f"{told.query[:57]}..."
    if told.database is None:
        fits = ", ".join(told.candidates) or "no engine"
        return f'{times}x {text}: cannot be told apart ({fits}); set "targetDatabase"'
    return (
        f'{times}x {text}: went to {told.database} by {told.rung}; "targetDatabase": '
        f'"{told.database}" spares the routing'
    )
