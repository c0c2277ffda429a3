"""Planning a cross-database operation: order, references, what may be repeated, what is refused."""

import graphlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan2_contract.engines import Engine
from plan2_sidecar.errors import InvalidRequest, NotAtomic, NotIdempotent, UnknownEngine
from plan2_sidecar.sagas import plan, references, repeats
from plan2_sidecar.sagas.repeats import Repeat
from plan2_sidecar.sagas.request import CrossDbRequest, Mode, fingerprint_of


def request(*operations: dict[str, Any], **members: Any) -> CrossDbRequest:
    return msgspec.convert({"operations": list(operations), **members}, CrossDbRequest)


def sql(identity: str, text: str = "UPDATE t SET n = n + 1", **members: Any) -> dict[str, Any]:
    return {"id": identity, "targetDatabase": "postgresql", "query": text, **members}


def redis(identity: str, *command: Any, **members: Any) -> dict[str, Any]:
    words = list(command or ("SET", "k", "v"))
    return {"id": identity, "targetDatabase": "redis", "query": words, **members}


def aql(identity: str, **members: Any) -> dict[str, Any]:
    text = "INSERT {a: @a} INTO t"
    return {"id": identity, "targetDatabase": "arangodb", "query": text, **members}


def ran(made: plan.Plan) -> list[str]:
    return [made.steps[at].id for at in made.order]


def ref(path: str) -> dict[str, str]:
    return {"$ref": path}


@pytest.mark.parametrize(
    ("operations", "mode"),
    [
        ([sql("a", "SELECT 1"), redis("b", "GET", "k")], Mode.READ),
        ([sql("a", "SELECT 1"), redis("b", "SET", "k", "v")], Mode.OUTBOX),
        ([sql("a")], Mode.OUTBOX),
    ],
    ids=["reads", "a-write-on-another", "a-write-in-sql"],
)
def test_the_mode_is_read_while_nothing_writes(
    operations: list[dict[str, Any]], mode: Mode
) -> None:
    assert plan.make(request(*operations)).mode is mode


def test_what_is_needed_runs_first_and_the_rest_as_given() -> None:
    made = plan.make(
        request(
            redis("a", dependsOn=["c"]),
            redis("b"),
            aql("c"),
            redis("d", "SET", "k", ref("b.data")),
            mode="saga",
        )
    )

    assert ran(made) == ["b", "c", "a", "d"]
    assert made.steps[3].needs == ["b"]


def test_an_outbox_begins_with_postgresql_in_its_own_order() -> None:
    made = plan.make(request(redis("a"), sql("b", dependsOn=["c"]), redis("d"), sql("c")))

    assert ran(made) == ["c", "b", "a", "d"]


def test_an_outbox_whose_postgresql_waits_for_another_engine_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"operations\[1\].*needs a"):
        plan.make(request(redis("a"), sql("b", dependsOn=["a"])))


@pytest.mark.parametrize(
    ("operations", "place"),
    [
        ([sql("a"), sql("a")], r"operations\[1\]\.id"),
        ([sql("a", dependsOn=["b"])], r"operations\[0\]\.dependsOn\[0\]"),
        ([sql("a", dependsOn=["a"])], r"operations\[0\]\.dependsOn\[0\]"),
        ([sql("a", dependsOn=["b"]), sql("b", dependsOn=["a"])], r"operations\[0\].*circle"),
        ([sql("a", params=[1, ref("b.data")]), sql("b")], r"operations\[0\]\.params\[1\]"),
        ([sql("a", params=[ref("a.data")])], r"operations\[0\]\.params\[0\]"),
        ([sql("a", params=[ref("nobody.data")])], r"operations\[0\]\.params\[0\]"),
        ([sql("a"), aql("b", params={"a": [ref("a")]})], r"operations\[1\]\.params\.a\[0\]"),
        ([sql("a"), aql("b", params={"a": ref("a.rows.0")})], r"operations\[1\]\.params\.a"),
        ([sql("a", params=[{"$ref": 1}])], r"operations\[0\]\.params\[0\]"),
        ([sql("a", params=[{"$opId": "yes"}])], r"operations\[0\]\.params\[0\]"),
        ([redis("a", "SET", "k", ref("x.data"))], r"operations\[0\]\.query\[2\]"),
    ],
    ids=[
        "twice-the-same-id",
        "needs-nobody",
        "needs-itself",
        "circle",
        "forward",
        "to-itself",
        "to-nobody",
        "no-path",
        "no-such-member",
        "no-text",
        "no-true",
        "in-a-command",
    ],
)
def test_what_cannot_be_planned_is_refused_with_its_place(
    operations: list[dict[str, Any]], place: str
) -> None:
    with pytest.raises(InvalidRequest, match=place):
        plan.make(request(*operations, mode="saga"))


def test_what_is_nested_too_deeply_is_refused() -> None:
    value: Any = 1
    for _ in range(references.DEEPEST + 1):
        value = [value]

    with pytest.raises(InvalidRequest, match=r"operations\[0\] is nested too deeply"):
        plan.make(request(sql("a", params=[value])))


def test_an_unknown_engine_is_refused_with_its_place() -> None:
    with pytest.raises(UnknownEngine) as refused:
        plan.make(request(sql("a"), sql("b") | {"targetDatabase": "oracle"}))

    assert refused.value.detail.startswith("operations[1]: ")


def test_a_compensation_may_refer_to_what_it_undoes_and_to_what_ran_before() -> None:
    undo = {"query": "DELETE FROM t WHERE id = $1 OR id = $2", "params": [ref("b.data.0.id")]}
    undo["params"] = [ref("b.data.0.id"), ref("a.data.0.id")]

    made = plan.make(request(sql("a"), sql("b", compensate=undo), mode="saga"))

    assert made.steps[1].needs == ["a"]
    assert made.steps[1].undo is not None
    assert made.steps[1].undo.engine is Engine.POSTGRESQL


@pytest.mark.parametrize("mode", ["read", "outbox", "atomic"])
def test_only_a_saga_has_compensations(mode: str) -> None:
    undo = {"query": "SELECT 1"}

    with pytest.raises(InvalidRequest, match=r"operations\[0\]\.compensate"):
        plan.make(request(sql("a", compensate=undo), mode=mode))


@pytest.mark.parametrize(
    "operations",
    [[sql("a"), aql("b")], [redis("a")], [redis("a"), sql("b")]],
    ids=["two-with-transactions", "one-without", "both"],
)
def test_atomic_is_refused_where_no_transaction_could_be(
    operations: list[dict[str, Any]],
) -> None:
    with pytest.raises(NotAtomic) as refused:
        plan.make(request(*operations, mode="atomic"))

    assert (refused.value.status, refused.value.code) == (422, "not_atomic")


HARMLESS = (
    "SET k v|SET k GET|SET k v EX 10|SET k v KEEPTTL|MSET a 1 b 2|DEL k|HSET h f v|HDEL h f"
    "|SADD s m|SREM s m|ZADD z 1 m|ZADD z GT 1 m|ZREM z m|EXPIREAT k 1|SETEX k 1 v|UNLINK k"
)
HARMFUL = (
    "SET k v NX|SET k v XX|SET k v GET|INCR k|APPEND k v|LPUSH l v|HINCRBY h f 1|EXPIRE k 10"
    "|ZADD z INCR 1 m|ZADD z NX 1 m|ZINCRBY z 1 m|RPOP l|SPOP s|GETDEL k|XADD s * a b|PUBLISH c m"
    "|FLUSHALL|EVAL x 0|EXPIREAT k 1 NX|SETNX k v|RENAME a b|NOSUCH k"
)


@pytest.mark.parametrize("command", HARMLESS.split("|"))
@pytest.mark.parametrize("engine", [Engine.DRAGONFLYDB, Engine.REDIS])
def test_commands_that_repeat_harmlessly_are_known(engine: Engine, command: str) -> None:
    for form in (command, command.split(), command.lower().split()):
        found = repeats.of(engine, form, idempotent=False, place="here")
        assert found is Repeat.HARMLESS


@pytest.mark.parametrize("command", HARMFUL.split("|"))
def test_commands_that_do_not_are_refused_unless_their_caller_says_so(command: str) -> None:
    with pytest.raises(NotIdempotent, match="here"):
        repeats.of(Engine.REDIS, command.split(), idempotent=False, place="here")

    found = repeats.of(Engine.REDIS, command.split(), idempotent=True, place="here")
    assert found is Repeat.CALLER


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("INSERT INTO t VALUES (1)", (None, "t")),
        ("insert into db.t (a, b) values (1, 'SELECT')", ("db", "t")),
        ('/* hi */ INSERT INTO TABLE `a b`."t" FORMAT JSONEachRow {}', ("a b", "t")),
        ("INSERT INTO t SELECT 1", None),
        ("INSERT INTO t SELECT 'x VALUES y'", None),
        ("INSERT INTO FUNCTION url('x') VALUES (1)", None),
        ("INSERT INTO t FROM INFILE 'x' FORMAT CSV", None),
        ("ALTER TABLE t DELETE WHERE 1", None),
    ],
    ids=["plain", "columns", "quoted", "select", "select-values", "function", "file", "alter"],
)
def test_the_table_of_an_insert_that_carries_its_rows(
    text: str, table: tuple[str | None, str] | None
) -> None:
    assert repeats.inserted_into(text) == table


@pytest.mark.parametrize(
    ("engine", "query", "repeat"),
    [
        (Engine.POSTGRESQL, "UPDATE t SET n = 1", Repeat.MARKED),
        (Engine.ARANGODB, "INSERT {} INTO t", Repeat.MARKED),
        (Engine.ARANGODB, "FOR d IN t RETURN d", Repeat.READ),
        (Engine.MONGODB, {"collection": "t", "documents": [{}]}, Repeat.ASK),
        (Engine.MONGODB, {"collection": "t", "filter": {}}, Repeat.READ),
        (Engine.CLICKHOUSE, "SELECT 1", Repeat.READ),
        (Engine.CLICKHOUSE, "INSERT INTO t VALUES (1)", Repeat.ASK),
        (Engine.WEAVIATE, {"collection": "T", "objects": [{}]}, Repeat.NAMED),
        (Engine.WEAVIATE, "{ Get { T { a } } }", Repeat.READ),
        (Engine.REDIS, "GET k", Repeat.READ),
    ],
)
def test_each_engine_repeats_in_its_own_way(engine: Engine, query: Any, repeat: Repeat) -> None:
    assert repeats.of(engine, query, idempotent=False, place="here") is repeat


def test_references_are_filled_in_wherever_they_stand() -> None:
    answers = {"a": {"data": [{"id": 7, "of": {"b": [1, 2]}}], "rowCount": 1}}
    value = {
        "x": [ref("a.data.0.id"), {"y": ref("a.data.0.of.b.1")}, ref("a.rowCount")],
        "own": {"$opId": True},
        "dbref": {"$ref": "collection", "$id": 1},
    }

    found = references.resolve(value, "the-id", answers.__getitem__, "here")

    assert found == {
        "x": [7, {"y": 2}, 1],
        "own": "the-id",
        "dbref": {"$ref": "collection", "$id": 1},
    }


@pytest.mark.parametrize("path", ["a.data.1.id", "a.data.0.nobody", "a.data.x", "a.rowCount.0"])
def test_a_reference_that_finds_nothing_says_where(path: str) -> None:
    answers = {"a": {"data": [{"id": 7}], "rowCount": 1}}

    with pytest.raises(InvalidRequest, match=r"here.*finds nothing"):
        references.resolve([ref(path)], "id", answers.__getitem__, "here")


def test_a_plan_comes_back_from_the_log_as_it_went() -> None:
    made = plan.make(
        request(
            sql("a", params=[1, "x", None, {"$opId": True}]),
            redis("b", "SET", "k", ref("a.data.0.n")),
            mode="saga",
        )
    )

    assert plan.DECODER.decode(plan.ENCODER.encode(made)) == made


def test_one_key_may_wait_differently_and_nothing_else() -> None:
    first = fingerprint_of(request(sql("a"), timeoutMs=5, idempotencyKey="k"))

    assert first == fingerprint_of(request(sql("a"), timeoutMs=500))
    assert first != fingerprint_of(request(sql("a"), mode="saga"))
    assert first != fingerprint_of(request(sql("a", params=[1])))


names = st.sampled_from("abcdef")


@st.composite
def requests(draw: st.DrawFn) -> list[dict[str, Any]]:
    chosen = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    return [
        redis(name, dependsOn=draw(st.lists(st.sampled_from(chosen), max_size=3, unique=True)))
        for name in chosen
    ]


def _circular(operations: list[dict[str, Any]]) -> bool:
    graph = {each["id"]: set(each["dependsOn"]) for each in operations}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError:
        return True
    return False


@settings(derandomize=True, deadline=None)
@given(requests())
def test_an_order_is_a_permutation_in_which_needs_come_first(
    operations: list[dict[str, Any]],
) -> None:
    if _circular(operations):
        with pytest.raises(InvalidRequest, match=r"circle|itself"):
            plan.make(request(*operations, mode="saga"))
        return

    made = plan.make(request(*operations, mode="saga"))

    order = ran(made)
    assert sorted(order) == sorted(each["id"] for each in operations)
    for step in made.steps:
        assert all(order.index(name) < order.index(step.id) for name in step.needs)
