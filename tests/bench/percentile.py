"""The value below which a share of the samples lies."""

from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """By nearest rank, of samples in rising order; 0 of none. `share` is from 0 to 1."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
