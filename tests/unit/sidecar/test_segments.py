"""Names, values and pages of a request."""

import contextlib
from typing import Annotated

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan2_sidecar.api.segments import checked, cursor, json_text, position
from plan2_sidecar.errors import InvalidRequest, MalformedJson


@pytest.mark.parametrize("name", ["a", "ü" * 256, "a/b:c d\n", "x" * 512])
def test_a_name_is_any_text_of_up_to_512_bytes(name: str) -> None:
    assert checked(name, "{key}") == name


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "0 bytes"), ("x" * 513, "513"), ("ü" * 257, "514"), ("a\0b", "NUL"), ("\udcff", "UTF-8")],
    ids=["empty", "long", "long in bytes", "nul", "surrogate"],
)
def test_another_name_is_refused_and_named(name: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=r"\{key\}") as refusal:
        checked(name, "{key}")

    assert why in refusal.value.detail


def test_a_value_that_is_not_utf_8_is_no_json() -> None:
    with pytest.raises(MalformedJson):
        json_text(msgspec.Raw(b'"\xff"'))


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 2**62), st.text(st.characters(codec="utf-8")))
def test_a_cursor_comes_back_as_it_was_given_out(number: int, text: str) -> None:
    given_out = cursor(number, text)

    assert given_out.isascii()
    assert not set(given_out) & set("+/=&?# ")
    assert position(given_out, tuple[int, str]) == (number, text)


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=30))
def test_any_other_cursor_is_refused_and_nothing_worse(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        (number,) = position(text, tuple[Annotated[int, msgspec.Meta(ge=0)]])
        assert number >= 0
