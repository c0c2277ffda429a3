"""Statements that may be asked twice: they call nothing that does more than compute."""

import time

import pytest

from plan2_sidecar.engines.postgresql_pure import is_pure


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM t WHERE id = $1",
        "SELECT COUNT (*), max(a) FILTER (WHERE b) OVER (PARTITION BY c) FROM t WHERE d IN ($1)",
        "WITH q AS (SELECT 1) SELECT CAST(a AS numeric(10, 2)) FROM q JOIN t USING (id)",
        "SELECT 'pg_notify(' || a, $$f()$$ FROM t -- f()",
        "VALUES (1, lower($1))",
    ],
)
def test_what_only_reads_and_computes(statement: str) -> None:
    assert is_pure(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_notify('a', 'b')",
        "SELECT PG_NOTIFY ('a', 'b')",
        "SELECT pg_notify/* */('a', 'b')",
        "SELECT my.count(1)",
        "SELECT my . count(1)",
        'SELECT "my".count(1)',
        'SELECT "count"(1)',
        'SELECT U&"count" (1)',
        "SELECT do$count(1)",
        "SELECT étage(1)",
        "SELECT lo_create(0)",
        "SELECT * FROM http_get('x')",
    ],
)
def test_what_calls_anything_else(statement: str) -> None:
    assert not is_pure(statement)


@pytest.mark.parametrize("part", ["a.", "a. ", "a", "a ", " ", "(", '"a"', '"a" . ', "$"], ids=repr)
def test_a_long_text_is_read_once(part: str) -> None:
    text = part * (200_000 // len(part))
    started = time.process_time()

    is_pure(text)

    # What reads the rest again from each place takes minutes.
    assert time.process_time() - started < 2
