"""Which engine a query goes to: the ladder, a table of statements, and what is never guessed."""

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar.errors import AmbiguousRoute, UnknownEngine
from plan2_sidecar.query import Text
from plan2_sidecar.routing import Operation, Rung, choose, writes

PG, CH, AQL = Engine.POSTGRESQL, Engine.CLICKHOUSE, Engine.ARANGODB
KV, VECTOR, DOC = Engine.DRAGONFLYDB, Engine.WEAVIATE, Engine.MONGODB

STATEMENTS: list[tuple[Text, Engine, Rung]] = [
    # GraphQL
    ("{ Get { Trade { symbol } } }", VECTOR, Rung.LANGUAGE),
    ("{Aggregate{Trade{meta{count}}}}", VECTOR, Rung.LANGUAGE),
    ("query Near { Get { Trade(limit: 1) { symbol } } }", VECTOR, Rung.LANGUAGE),
    ("# a comment\n{ Get { Trade { symbol } } }", VECTOR, Rung.LANGUAGE),
    # AQL
    ("FOR u IN users FILTER u.age > 3 RETURN u", AQL, Rung.LANGUAGE),
    ("for u in users return u", AQL, Rung.LANGUAGE),
    ("RETURN DOCUMENT('users/1')", AQL, Rung.LANGUAGE),
    ("LET x = 1 RETURN x", AQL, Rung.LANGUAGE),
    ("/* SELECT 1 */ FOR u IN users RETURN u", AQL, Rung.LANGUAGE),
    ("// all of them\nFOR u IN users RETURN u", AQL, Rung.LANGUAGE),
    ("INSERT {name: 'SELECT'} INTO users", AQL, Rung.LANGUAGE),
    ("INSERT @doc INTO users RETURN NEW", AQL, Rung.LANGUAGE),
    ("UPDATE 'k' WITH {set: 1} IN users", AQL, Rung.LANGUAGE),
    ("UPDATE {_key: 'k'} WITH {a: 1} IN users", AQL, Rung.LANGUAGE),
    ("UPSERT {a: 1} INSERT {a: 1} UPDATE {} IN users", AQL, Rung.LANGUAGE),
    ("REMOVE 'k' IN users", AQL, Rung.LANGUAGE),
    ("REPLACE 'k' WITH {a: 1} IN users", AQL, Rung.LANGUAGE),
    ("WITH users, orders FOR v IN 1..2 OUTBOUND 'users/1' edges RETURN v", AQL, Rung.LANGUAGE),
    # Redis
    (["GET", "k"], KV, Rung.LANGUAGE),
    ("GET user:1", KV, Rung.LANGUAGE),
    ("SET k v", KV, Rung.LANGUAGE),
    ("SET k a=b EX 10", KV, Rung.LANGUAGE),
    ("set k 1", KV, Rung.LANGUAGE),
    ("HGETALL session:9", KV, Rung.LANGUAGE),
    ("EXISTS k", KV, Rung.LANGUAGE),
    ("DEL a b c", KV, Rung.LANGUAGE),
    ("RENAME a b", KV, Rung.LANGUAGE),
    ("COPY a b REPLACE", KV, Rung.LANGUAGE),
    ("MOVE k 1", KV, Rung.LANGUAGE),
    ("PING", KV, Rung.LANGUAGE),
    ("CL.THROTTLE c 15 30 60", KV, Rung.LANGUAGE),
    # PostgreSQL by its syntax
    ("SELECT * FROM accounts WHERE id = $1", PG, Rung.DIALECT),
    ("INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING", PG, Rung.DIALECT),
    ("INSERT INTO t (a) VALUES (1) RETURNING id", PG, Rung.DIALECT),
    ("SELECT * FROM t FOR UPDATE SKIP LOCKED", PG, Rung.DIALECT),
    ("SELECT data->>'name' FROM t", PG, Rung.DIALECT),
    ("SELECT * FROM t WHERE tags @> '{a}'", PG, Rung.DIALECT),
    ("VACUUM accounts", PG, Rung.DIALECT),
    ("SELECT string_agg(name, ',') FROM t", PG, Rung.DIALECT),
    ("SELECT 'PREWHERE' FROM t WHERE a = $1", PG, Rung.DIALECT),
    ("SELECT 'it''s FINAL' FROM t WHERE a = $1", PG, Rung.DIALECT),
    ("COPY accounts FROM STDIN", PG, Rung.DIALECT),
    # ClickHouse by its syntax
    ("SELECT * FROM trades PREWHERE day = today()", CH, Rung.DIALECT),
    ("SELECT * FROM trades FINAL WHERE a = 1", CH, Rung.DIALECT),
    ("SELECT * FROM db.trades AS t FINAL", CH, Rung.DIALECT),
    ("SELECT * FROM trades SAMPLE 0.1", CH, Rung.DIALECT),
    ("SELECT a FROM t ORDER BY a LIMIT 2 BY a", CH, Rung.DIALECT),
    ("SELECT a FROM t WHERE id = {id:UInt64}", CH, Rung.DIALECT),
    ("INSERT INTO t SELECT * FROM s WHERE id = {id: UInt64}", CH, Rung.DIALECT),
    ("SELECT a FROM t ARRAY JOIN b", CH, Rung.DIALECT),
    ("SELECT 1 FORMAT JSONEachRow", CH, Rung.DIALECT),
    ('INSERT INTO t FORMAT JSONEachRow {"a": 1}', CH, Rung.DIALECT),
    ("CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a", CH, Rung.DIALECT),
    ("OPTIMIZE TABLE t FINAL", CH, Rung.DIALECT),
    ("EXISTS TABLE t", CH, Rung.DIALECT),
    ("RENAME TABLE a TO b", CH, Rung.DIALECT),
    ("SELECT toStartOfHour(at), countIf(a = 1) FROM t", CH, Rung.DIALECT),
    ("SELECT quantile(0.99)(ms) FROM t -- $1 is no parameter here", CH, Rung.DIALECT),
    # objects
    ({"collection": "c", "filter": {}}, DOC, Rung.SHAPE),
    ({"collection": "c", "pipeline": []}, DOC, Rung.SHAPE),
    ({"collection": "c", "documents": [{}]}, DOC, Rung.SHAPE),
    ({"collection": "C", "nearVector": [0.1], "limit": 3}, VECTOR, Rung.SHAPE),
    ({"collection": "C", "bm25": {"query": "x"}}, VECTOR, Rung.SHAPE),
    ({"collection": "C", "objects": [{}]}, VECTOR, Rung.SHAPE),
]

AMBIGUOUS: list[Text] = [
    r"SELECT 'C:\' AS a, $1 AS b, 'x'",
    "SELECT 1",
    "SELECT a::text FROM t",
    "SELECT format FROM t",
    "SELECT final FROM t WHERE a = 'FINAL'",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "INSERT INTO t (a) VALUES (1)",
    "UPDATE t SET a = 1 WHERE b IN (1, 2)",
    "DELETE FROM t WHERE a = 1",
    "UPDATE t SET a = string_agg(b, ',')",
    "INSERT INTO t SELECT toDate(a) FROM s",
    "SET statement_timeout = 0",
    "SET statement_timeout TO 0",
    "SET SESSION x",
    "SELECT * FROM t PREWHERE a = $1",
    r"SELECT 'a\' , $1, ' || b FROM t",
    "hello there",
    "",
    {"collection": "c", "limit": 3},
    {},
]


@pytest.mark.parametrize(("query", "engine", "rung"), STATEMENTS, ids=lambda value: str(value)[:50])
def test_a_query_without_a_target_goes_where_its_language_says(
    query: Text, engine: Engine, rung: Rung
) -> None:
    route = choose(query, None, None)

    assert (route.engine, route.rung) == (engine, rung)


@pytest.mark.parametrize("query", AMBIGUOUS, ids=lambda value: str(value)[:50] or "empty")
def test_what_fits_two_engines_is_not_guessed(query: Text) -> None:
    with pytest.raises(AmbiguousRoute) as refusal:
        choose(query, None, None)

    assert len(refusal.value.members["candidates"]) >= 2


@pytest.mark.parametrize(
    ("target", "engine"),
    [("postgresql", PG), ("postgres", PG), ("mongo", DOC), ("redis", Engine.REDIS)],
)
def test_a_target_or_its_alias_comes_before_everything(target: str, engine: Engine) -> None:
    route = choose("/* plan2: clickhouse */ SELECT 1", target, Operation.CACHE)

    assert (route.engine, route.rung) == (engine, Rung.TARGET)


def test_a_hint_comes_before_the_operation() -> None:
    route = choose("/* plan2: clickhouse */ SELECT 1", None, Operation.RELATIONAL)

    assert (route.engine, route.rung) == (CH, Rung.HINT)


def test_a_hint_is_taken_off_where_the_engine_knows_no_comments() -> None:
    assert choose("/* plan2: dragonfly */ GET k", None, None).query == "GET k"
    assert choose("/* plan2: postgres */ SELECT 1", None, None).query.startswith("/*")


@pytest.mark.parametrize("operation", list(Operation))
def test_every_operation_has_its_engine(operation: Operation) -> None:
    assert choose("SELECT 1", None, operation).rung is Rung.OPERATION


@pytest.mark.parametrize("query", ["SELECT 1", "/* plan2: oracle */ SELECT 1"])
def test_an_unknown_engine_is_named(query: str) -> None:
    with pytest.raises(UnknownEngine, match="oracle"):
        choose(query, None if "oracle" in query else "oracle", None)


@pytest.mark.parametrize(
    ("engine", "query"),
    [
        (PG, "SELECT 1"),
        (PG, "WITH x AS (SELECT 'DELETE') SELECT * FROM x -- UPDATE"),
        (CH, "SHOW TABLES"),
        (AQL, "FOR u IN users FILTER u.name == 'REMOVE' RETURN u"),
        (KV, ["get", "k"]),
        (KV, "TTL k"),
        (DOC, {"collection": "c", "pipeline": [{"$match": {}}]}),
        (VECTOR, {"collection": "C", "nearVector": [1]}),
        (VECTOR, "{ Get { C { a } } }"),
    ],
    ids=str,
)
def test_reads_are_known(engine: Engine, query: Text) -> None:
    assert not writes(engine, query)


@pytest.mark.parametrize(
    ("engine", "query"),
    [
        (PG, "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone"),
        (PG, "SELECT * INTO t2 FROM t"),
        (PG, "EXPLAIN ANALYZE INSERT INTO t VALUES (1)"),
        (PG, r"SELECT 'a\'; DELETE FROM t; --'"),
        (PG, "CALL something()"),
        (CH, "OPTIMIZE TABLE t"),
        (AQL, "FOR u IN users REMOVE u IN users"),
        (KV, ["INCR", "k"]),
        (KV, []),
        (KV, ["MODULE", "LOAD", "x"]),
        (DOC, {"collection": "c", "pipeline": [{"$out": "d"}]}),
        (DOC, {"collection": "c", "filter": {}, "delete": "one"}),
        (VECTOR, {"collection": "C", "objects": []}),
        (PG, {"collection": "c"}),
    ],
    ids=str,
)
def test_what_may_change_something_counts_as_a_write(engine: Engine, query: Text) -> None:
    assert writes(engine, query)


def test_a_keyword_right_behind_a_number_is_a_keyword() -> None:
    assert writes(Engine.ARANGODB, "FOR i IN 1..2INSERT {i} INTO c")
    assert not writes(Engine.ARANGODB, "FOR i IN 1..2 RETURN 1.5e3 * i")
