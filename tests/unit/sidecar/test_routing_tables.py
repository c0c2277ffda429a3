"""The tables a statement names: not its CTEs, aliases, functions, strings, or what it creates."""

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar.routing.reading import read
from plan2_sidecar.routing.tables import Name, tables
from plan2_sidecar.routing.tokens import tokens

NAMED = [
    ("SELECT 1", ""),
    ("SELECT * FROM a, b.c AS x, (SELECT * FROM d) y JOIN e ON e.id = y.id, f", "a b.c d e f"),
    ("SELECT * FROM a WHERE g IN (SELECT 1 FROM h WHERE h.b = a.c)", "a h"),
    ("SELECT * FROM a CROSS JOIN b LEFT JOIN c ON 1 = 1 ORDER BY d, e", "a b c"),
    ("SELECT * FROM (a JOIN b ON true)", "a b"),
    ("SELECT * FROM ((a JOIN b ON true) JOIN c ON true)", "a b c"),
    ("SELECT * FROM ((SELECT * FROM a) UNION (SELECT * FROM b)) q", "a b"),
    ("SELECT * FROM a /* FROM x */ -- JOIN y\nWHERE b = 'FROM z'", "a"),
    ("WITH x AS (SELECT * FROM y), z(a, b) AS (SELECT 1) SELECT * FROM x JOIN z USING (a)", "y"),
    ("WITH RECURSIVE x AS (SELECT 1 UNION SELECT a FROM x JOIN y ON true) SELECT * FROM x", "y"),
    ("WITH x AS NOT MATERIALIZED (SELECT 1), y AS (SELECT 2 FROM X) SELECT * FROM Y, w", "w"),
    ("SELECT extract(day FROM at), trim(both FROM b) FROM numbers(10), s", "s"),
    ("SELECT * FROM a WHERE b IS NOT DISTINCT FROM c", "a"),
    ("SELECT a FROM t ARRAY JOIN b, c", "t"),
    ("SELECT a.b FROM ONLY t, LATERAL (SELECT * FROM u) x", "t u"),
    ("INSERT INTO s.t (a, b) SELECT a, b FROM u", "s.t u"),
    ("INSERT INTO TABLE t VALUES (1)", "t"),
    ("INSERT INTO t WITH q AS (SELECT 1) SELECT * FROM q", "t"),
    ("INSERT INTO FUNCTION file('x') SELECT * FROM t", "t"),
    ("INSERT INTO t FORMAT CSV 1, from x", "t"),
    ("UPDATE ONLY t SET a = 1 FROM u", "t u"),
    ("UPDATE t SET a = (SELECT max(b) FROM u)", "t u"),
    ("DELETE FROM t USING u WHERE t.a = u.a", "t u"),
    ("WITH gone AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM gone", "t u"),
    (
        "MERGE INTO t USING (SELECT * FROM u) s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = 1",
        "t u",
    ),
    ("INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 2", "t"),
    ("SELECT * FROM t FOR UPDATE OF t", "t"),
    ("SELECT * INTO made FROM t", "t"),
    ("DROP TABLE IF EXISTS a, b CASCADE", "a b"),
    ("DROP MATERIALIZED VIEW v", "v"),
    ("DROP DATABASE d", ""),
    ("DROP INDEX i ON t", "t"),
    ("TRUNCATE a", "a"),
    ("TRUNCATE TABLE a, s.b RESTART IDENTITY", "a s.b"),
    ("ALTER TABLE IF EXISTS ONLY s.t ADD COLUMN c int", "s.t"),
    ("ALTER TABLE t REPLACE PARTITION '1' FROM u", "t u"),
    ("CREATE TABLE made (a int)", ""),
    ("CREATE TABLE made AS SELECT * FROM t", "t"),
    ("CREATE TABLE made AS t", "t"),
    ("CREATE MATERIALIZED VIEW made TO other AS SELECT a FROM t", "t"),
    ("CREATE UNIQUE INDEX i ON ONLY t (a)", "t"),
    ("CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()", "t"),
    ("GRANT SELECT ON a, s.b TO c", "a s.b"),
    ("GRANT SELECT ON db.* TO c", ""),
    ("GRANT ALL ON SCHEMA public TO c", ""),
    ("EXPLAIN ANALYZE SELECT * FROM t", "t"),
    ("TABLE t", "t"),
    ("SHOW TABLES FROM d", ""),
    ("SET a = 1", ""),
    ('SELECT * FROM "A b"."c""d", `e`', 'A b.c"d e'),
]


@pytest.mark.parametrize(("text", "names"), NAMED, ids=[text[:60] for text, _ in NAMED])
def test_the_tables_of_a_statement(text: str, names: str) -> None:
    found = tables(read(tokens(text)))

    assert " ".join(sorted(map(str, found))) == names


def test_postgresql_folds_a_name_that_is_not_quoted_and_clickhouse_none() -> None:
    name = Name(("Public", "Accounts"), (False, True))

    assert name.on(Engine.POSTGRESQL) == ("public", "Accounts")
    assert name.on(Engine.CLICKHOUSE) == ("Public", "Accounts")
