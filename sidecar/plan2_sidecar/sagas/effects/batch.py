"""Statements that run one after the other in one transaction; later ones may need the earlier."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from plan2_sidecar.query import Query, Result
from plan2_sidecar.sagas.log import encoded

Results = Mapping[int, msgspec.Raw]


@dataclass
class Batch:
    """The statements at `positions`. `current` is the one that runs, or that failed: then it
    still is `under_way`.

    `query_of(position, results)` is a statement with what the earlier ones answered in it; with
    None in place of results, the same statement with nulls, for an engine that wants to see it
    before anything runs.
    """

    positions: list[int]
    query_of: Callable[[int, Results | None], Query]
    current: int = field(init=False)
    under_way: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.current = self.positions[0]

    async def run(self, execute: Callable[[Query], Awaitable[Result]]) -> Results:
        """All of them; raises what `execute` raises."""
        results: dict[int, msgspec.Raw] = {}
        for position in self.positions:
            self.current, self.under_way = position, True
            results[position] = await timed(execute, self.query_of(position, results))
            self.under_way = False
        return results

    def only(self) -> Query:
        """The statement of a batch that has one."""
        return self.query_of(self.current, {})


async def timed(execute: Callable[[Query], Awaitable[Result]], query: Query) -> msgspec.Raw:
    """What it answers and how long that took, as the log keeps it."""
    started = time.monotonic()
    result = await execute(query)
    return encoded(result, int((time.monotonic() - started) * 1_000_000))


_RESULTS = msgspec.json.Decoder(dict[int, msgspec.Raw])


def as_text(results: Results) -> str:
    """The results as a marker keeps them."""
    return msgspec.json.encode(results).decode()


def from_text(text: str) -> Results:
    """What a marker kept."""
    return {at: msgspec.Raw(bytes(result)) for at, result in _RESULTS.decode(text).items()}


@dataclass(frozen=True)
class Sealed:
    """What is known for good of a step: its results, or that it never was and never will be."""

    applied: bool
    results: Results = field(default_factory=dict)
