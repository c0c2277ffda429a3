"""Texts made to be slow to read, or to hide a write: routing stays quick, and doubts."""

import time
from contextlib import suppress

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar.engines import arangodb, sqltext
from plan2_sidecar.errors import AmbiguousRoute
from plan2_sidecar.routing import choose, defines_tables, writes
from plan2_sidecar.routing.tokens import LONGEST

# A reader that looks back takes minutes for 150,000 characters of any of these.
PIECES = {
    "escapes": "\\'",
    "open comments": "/* ",
    "closed comments": "/**/",
    "quotes": "'a",
    "open names": '"\\"',
    "brackets": "(",
    "brackets behind from": "FROM ((",
    "joins in brackets": "FROM (a JOIN ",
    "from": "FROM a, ",
    "many names": "FROM a.b, c, ",
    "with": "WITH a AS (",
    "prewhere": "FROM a PREWHERE b ",
    "typed": "{a:A(",
    "extract": "extract(a FROM ",
    "returning": "INSERT RETURNING a ",
    "updates": "UPDATE t SET a FROM ",
    "loops": "FOR a IN ",
    "finals": "FROM a AS b FINAL ",
    "spaces": "  ",
}
# Of this process. Generous: such a text takes a quarter of a second, and minutes by the square.
SECONDS = 20.0


@pytest.mark.parametrize("start", ["SELECT * ", "INSERT INTO t "])
@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES.keys())
def test_the_time_to_read_a_text_does_not_grow_with_its_square(start: str, piece: str) -> None:
    text = start + piece * (150_000 // len(piece))
    began = time.process_time()

    with suppress(AmbiguousRoute):
        choose(text, None, None)
    writes(Engine.POSTGRESQL, text)
    writes(Engine.ARANGODB, text)
    defines_tables(text)
    sqltext.bare(text)
    arangodb.changes(text)

    assert time.process_time() - began < SECONDS


def test_distinct_dollar_quotes_left_open_are_read_once() -> None:
    text = "SELECT " + "".join(f"$t{number}$ " for number in range(100_000))
    began = time.process_time()

    writes(Engine.POSTGRESQL, text)
    sqltext.bare(text[:100_000])

    assert time.process_time() - began < SECONDS


def test_a_long_read_is_a_read_and_a_long_text_that_may_write_does() -> None:
    numbers = ", ".join(str(number) for number in range(LONGEST // 4))

    assert not writes(Engine.POSTGRESQL, f"SELECT * FROM t WHERE id IN ({numbers})")
    assert writes(Engine.POSTGRESQL, f"SELECT * FROM t WHERE id IN ({numbers}); DELETE FROM t")
    assert writes(Engine.ARANGODB, f"FOR u IN c FILTER u.n IN [{numbers}] REMOVE u IN c")


def test_a_long_insert_is_routed_by_its_beginning() -> None:
    rows = ", ".join(f"({number}, 'x')" for number in range(LONGEST // 4))

    route = choose(f"INSERT INTO t SETTINGS async_insert = 1 VALUES {rows}", None, None)

    assert (route.engine, route.write) == (Engine.CLICKHOUSE, True)


@pytest.mark.parametrize(
    "text",
    [
        r"SELECT 'C:\' ; DROP TABLE t",
        r"SELECT 'a\'; DELETE FROM t; --'",
        "SELECT /* a /* b */ 1 */ INTO t2 FROM t",
        "SELECT 5 # 3 INTO t2 FROM t",
        "SELECT 5 // 3 INTO t2 FROM t",
        'SELECT "a\\" INTO t2 FROM t',
    ],
)
def test_what_one_engine_reads_as_a_write_is_a_write(text: str) -> None:
    assert writes(Engine.POSTGRESQL, text)


@pytest.mark.parametrize("text", ["SELECT 'C:\\' ; SET x = 1", 'SELECT "a\\" ; SET x', "$a$ ; x"])
def test_what_a_quote_left_open_may_hide_stays_in_sight(text: str) -> None:
    assert ";" in sqltext.bare(text)


@pytest.mark.parametrize(
    ("text", "defines"),
    [
        ("CREATE TABLE t (a int)", True),
        ("-- SELECT\n /* x */ alter table t add a int", True),
        ("SELECT * INTO t2 FROM t", True),
        ("WITH x AS (SELECT 1) SELECT * INTO t FROM x", True),
        ("DO $$ BEGIN END $$", True),
        ("SELECT create_at FROM t", False),
        ("INSERT INTO t VALUES (1)", False),
        ("SELECT 1 INTO OUTFILE 'x'", False),
        ("DOCTOR", False),
        ("", False),
    ],
)
def test_a_statement_that_may_define_tables_is_seen(text: str, defines: bool) -> None:
    assert defines_tables(text) is defines
    # What is begun without a task is no write, and looked at no further.
    assert writes(Engine.POSTGRESQL, text) >= defines
