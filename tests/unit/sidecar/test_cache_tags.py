"""What a query is about, and when that cannot be told."""

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar.cache import tags
from plan2_sidecar.cache.tables import Tables
from plan2_sidecar.query import Text

KNOWN = Tables(frozenset({"orders", "users", "items"}), frozenset({"v_orders", "total_of"}))


def about(engine: Engine, query: Text, *, write: bool = False) -> set[str] | None:
    found = tags.of(engine, query, KNOWN, write=write)
    return None if found is None else set(found)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM orders", {"orders"}),
        ('SELECT * FROM public."Orders" o JOIN users u ON true', {"orders", "users"}),
        ("SELECT (SELECT max(n) FROM items) FROM orders", {"orders", "items"}),
        ("WITH x AS (SELECT 1 FROM users) SELECT * FROM x", {"users"}),
        ("SELECT 'users' FROM orders -- items", {"orders"}),
        ("SELECT * FROM new_table", {"new_table"}),
        ("SELECT 1", None),
        ("SELECT * FROM v_orders", None),
        ("SELECT total_of(1) FROM orders", None),
    ],
)
def test_a_read_is_about_the_tables_it_names(query: str, expected: set[str] | None) -> None:
    assert about(Engine.POSTGRESQL, query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("INSERT INTO orders VALUES (1)", {"orders"}),
        ("UPDATE Orders SET n = 1 FROM users", {"orders", "users"}),
        ("DELETE FROM orders", {"orders"}),
        ("WITH gone AS (DELETE FROM items RETURNING *) SELECT 1", {"items"}),
        ("INSERT INTO v_orders VALUES (1)", None),
        ("TRUNCATE orders CASCADE", None),
        ("ALTER TABLE orders ADD x int", None),
        ("CREATE TABLE orders (n int)", None),
        ("DROP TABLE orders", None),
        ("CALL tidy()", None),
        ("DO $$ BEGIN DELETE FROM orders; END $$", None),
        ("", None),
    ],
)
def test_a_write_is_about_its_tables_or_about_everything(
    query: str, expected: set[str] | None
) -> None:
    assert about(Engine.POSTGRESQL, query, write=True) == expected
    if "gone" not in query:
        assert about(Engine.CLICKHOUSE, query, write=True) == expected


def test_nothing_is_told_before_the_tables_are_known() -> None:
    for query in ("SELECT * FROM orders", {"collection": "orders", "filter": {}}):
        engine = Engine.POSTGRESQL if isinstance(query, str) else Engine.MONGODB
        assert tags.of(engine, query, None, write=False) is None


@pytest.mark.parametrize(
    ("engine", "query", "expected"),
    [
        (Engine.MONGODB, {"collection": "Orders", "filter": {}}, {"orders"}),
        (Engine.MONGODB, {"collection": "v_orders", "filter": {}}, None),
        (Engine.MONGODB, {"collection": "orders", "pipeline": []}, None),
        (Engine.WEAVIATE, {"collection": "Docs", "objects": []}, {"docs"}),
        (Engine.WEAVIATE, "{ Get { Docs { title } } }", None),
        (Engine.ARANGODB, "FOR d IN orders RETURN d", None),
        (Engine.DRAGONFLYDB, ["GET", "k"], None),
    ],
)
def test_the_other_engines(engine: Engine, query: Text, expected: set[str] | None) -> None:
    assert about(engine, query) == expected


def test_a_long_text_or_many_tables_are_not_told_apart() -> None:
    many = ", ".join(f"t{number}" for number in range(40))

    assert about(Engine.POSTGRESQL, f"SELECT * FROM {many}") is None
    assert about(Engine.POSTGRESQL, "SELECT * FROM orders" + " " * 10_000) is None
