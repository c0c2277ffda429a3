"""Tokens: every line of the file is valid, and the file may change at any time."""

from pathlib import Path

import pytest

from plan2_sidecar.tokens import Tokens


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\nsecond\n")
    return path


@pytest.mark.parametrize("header", ["Bearer first", "bearer second", "BEARER  first"])
def test_every_line_opens(file: Path, header: str) -> None:
    assert Tokens(None, file).admits(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "first", "Basic first", "Bearer", "Bearer ", "Bearer fir", "Bearer first\udcff"],
)
def test_anything_else_does_not(file: Path, header: str | None) -> None:
    assert not Tokens(None, file).admits(header)


def test_a_token_added_to_the_file_is_valid_at_once(file: Path) -> None:
    tokens = Tokens(None, file)

    file.write_text("third\nfirst\n")

    assert tokens.admits("Bearer third")
    assert tokens.admits("Bearer first")
    assert not tokens.admits("Bearer second")


def test_a_token_taken_from_the_file_is_refused_after_the_next_look(file: Path) -> None:
    tokens = Tokens(None, file)

    file.write_text("third\n")
    tokens.poll()

    assert not tokens.admits("Bearer first")


def test_a_configured_file_that_is_missing_lets_nobody_in(tmp_path: Path) -> None:
    tokens = Tokens(None, tmp_path / "token")

    assert tokens.required
    assert not tokens.admits("Bearer ")


def test_a_file_that_cannot_be_read_lets_nobody_in_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "token"
    directory.mkdir()
    tokens = Tokens(None, directory)

    assert [tokens.admits("Bearer x") for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1


def test_a_file_that_becomes_empty_lets_nobody_in(file: Path) -> None:
    tokens = Tokens(None, file)

    file.write_text("")
    tokens.poll()

    assert tokens.required
    assert not tokens.admits("Bearer first")
    assert not tokens.admits("Bearer ")


def test_no_token_at_all_asks_for_none() -> None:
    assert not Tokens(None, None).required
