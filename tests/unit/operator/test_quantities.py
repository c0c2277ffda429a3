"""Quantities as Kubernetes writes them."""

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan2_operator import quantities

SCALES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10Gi", 10 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500m", Decimal("0.5")),
        ("2", 2),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("12e-1", Decimal("1.2")),
        (".5", Decimal("0.5")),
        ("5.", 5),
        ("+1k", 1000),
    ],
)
def test_reads_every_notation(text: str, number: Decimal | int) -> None:
    assert quantities.parse(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "10Gigs", "1Gb", "-1", "1 Gi", "10gi", "0x10", "1e", "1e9999", "9" * 33]
)
def test_refuses_what_kubernetes_would_not_take(text: str) -> None:
    with pytest.raises(quantities.BadQuantity):
        quantities.parse(text)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SCALES)))
def test_a_suffix_is_its_factor(number: int, suffix: str) -> None:
    assert quantities.to_bytes(f"{number}{suffix}") == number * SCALES[suffix]


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_a_bad_quantity(text: str) -> None:
    with contextlib.suppress(quantities.BadQuantity):
        assert quantities.parse(text) >= 0


def test_bytes_are_rounded_up() -> None:
    assert quantities.to_bytes("1500m") == 2
