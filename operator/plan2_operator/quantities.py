"""Kubernetes quantities ("10Gi", "100m", "1e3") as numbers; nothing here knows their meaning."""

import re
from decimal import Decimal
from typing import Final

PATTERN: Final = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
MAX_LENGTH: Final = 32
_QUANTITY: Final = re.compile(
    r"\+?(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?"
)
_SCALES: Final = {
    **{f"{prefix}i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", 1)},
    **{prefix: Decimal(1000) ** power for power, prefix in enumerate("kMGTPE", 1)},
    "m": Decimal(1) / 1000,
    "u": Decimal(1) / 10**6,
    "n": Decimal(1) / 10**9,
}


class BadQuantity(ValueError):
    """Text that Kubernetes would not take as a quantity."""


def parse(text: str) -> Decimal:
    """The number `text` stands for, in its base unit (bytes, cores); raises BadQuantity."""
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise BadQuantity(f"{text!r} is not a quantity such as 10Gi, 500m or 2")
    number = Decimal(match["number"])
    suffix = match["suffix"] or ""
    if suffix in _SCALES:
        return number * _SCALES[suffix]
    return number.scaleb(int(suffix[1:])) if suffix else number


def to_bytes(text: str) -> int:
    """`parse`, rounded up to whole bytes as Kubernetes does."""
    number = parse(text)
    whole = int(number)
    return whole if whole == number else whole + 1
