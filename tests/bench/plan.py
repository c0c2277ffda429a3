"""How much is measured: rounds and seconds for each size, so that the whole stays in its time."""

from dataclasses import dataclass

PROMISED = 16
PER_RUN_SECONDS = 0.2  # a process started, its result read


@dataclass(frozen=True, kw_only=True)
class Effort:
    """`rounds` of peer and product in turn, each so many whole seconds long."""

    connections: int
    rounds: int
    seconds: int

    def estimate(self) -> float:
        """Seconds for both sides of one case, warm-up included."""
        runs = 2 * (self.rounds * (self.seconds + PER_RUN_SECONDS) + 1 + PER_RUN_SECONDS)
        return runs


def efforts(sizes: list[int], rounds: int, seconds: int) -> list[Effort]:
    """The promised size first and for `seconds`; the others for a second each."""
    ordered = sorted(sizes, key=lambda size: size != PROMISED)
    return [
        Effort(connections=size, rounds=rounds, seconds=seconds if size == PROMISED else 1)
        for size in ordered
    ]


def total(planned: list[Effort], cases: int) -> float:
    """Seconds for so many cases."""
    return cases * sum(effort.estimate() for effort in planned)
