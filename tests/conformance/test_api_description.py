"""Requests made up from /openapi.json, good and bad, over real engines: no 500, nothing unsaid.

Every answer must have a status, a content type and a form that the description has for the call.
The cases are the same on every run.
"""

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fixtures.fix_sidecar import SidecarProcess, starting
from plan2_contract.engines import Engine
from tools import http_reference

TOKEN = "secret"
CASES_OF_EACH_KIND = 33
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT = http_reference.document()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}
# Without a parameter there is one case, and nothing that could be wrong with it.
PLAIN = {
    label
    for label, each in OPERATIONS.items()
    if not (each.body or each.definition.raw["parameters"])
}
ENGINES = list(Engine)

same_on_every_run = hypothesis.settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=CASES_OF_EACH_KIND,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
Ask = Callable[..., None]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def words(text: str) -> list[str]:
    return text.split()


KINDS = {
    Engine.POSTGRESQL: words(
        "int2 int8 numeric float8 money text bytea json jsonb uuid inet bit date time timestamptz "
        "interval int4[] text[] int4range point xml tsvector bool"
    ),
    Engine.CLICKHOUSE: words(
        "UInt8 Int64 Float64 Decimal(9,2) String UUID Date DateTime64(3) Bool IPv4 JSON "
        "Array(String) Array(UInt8) Map(String,String) Nullable(String) Tuple(UInt8,String)"
    ),
}
COMMANDS = words("GET SET HGETALL LPUSH ZADD INCRBY TYPE EVAL XADD SUBSCRIBE SORT SCAN MULTI")
MEMBERS = ("filter", "pipeline", "documents", "update", "delete", "sort", "projection", "limit")
SEARCHES = ("nearVector", "bm25", "hybrid", "objects", "where", "properties", "limit")
OPERATORS = ("$gt", "$in", "$set", "$match", "$oid", "$date", "$numberLong", "$regex", "$expr")
DOCUMENTS = st.dictionaries(st.sampled_from(("_id", "a", *OPERATORS)), JSON, max_size=2)


def form(members: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """An object query: a collection and any of these members."""
    value = JSON | DOCUMENTS | st.lists(DOCUMENTS, max_size=2)
    some = st.dictionaries(st.sampled_from(members), value, max_size=3)
    return some.map(lambda each: {"collection": "described", **each})


def typed(text: str, engine: Engine) -> st.SearchStrategy[str]:
    """A statement that takes one value of any type of the engine's."""
    return st.sampled_from([text.replace("TYPE", kind) for kind in KINDS[engine]])


VALUE, NAMED = st.lists(JSON, min_size=1, max_size=1), st.fixed_dictionaries({"a": JSON})
COMMAND = st.tuples(st.sampled_from(COMMANDS), st.lists(JSON, max_size=4)).map(
    lambda each: [each[0], *each[1]]
)
WEAVIATE = form(SEARCHES) | st.text(max_size=10).map(lambda text: f"{{ Get {{ {text} }} }}")
SQL = typed("SELECT $1::TYPE AS a", Engine.POSTGRESQL)
DIALECT = typed("SELECT {a:TYPE} AS a", Engine.CLICKHOUSE)
AQL = st.sampled_from(("RETURN @a", "FOR x IN @a RETURN x", "RETURN {[@a]: LENGTH(@a)}"))
# Of each engine: what it is asked, and with what parameters.
ASKED: dict[Engine, tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]] = {
    Engine.POSTGRESQL: (SQL, VALUE),
    Engine.CLICKHOUSE: (DIALECT, NAMED),
    Engine.ARANGODB: (AQL, NAMED),
    Engine.DRAGONFLYDB: (COMMAND, st.none()),
    Engine.REDIS: (COMMAND, st.none()),
    Engine.MONGODB: (form(MEMBERS), st.none()),
    Engine.WEAVIATE: (WEAVIATE, st.none()),
}


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A query that its engine may well understand, and now and then one that it will not."""
    engine = draw(st.sampled_from(ENGINES))
    query, params = ASKED[engine]
    options = st.fixed_dictionaries(
        {"timeoutMs": st.just(2000)},
        optional={"readOnly": st.booleans(), "maxRows": st.integers(1, 5)},
    )
    return {
        "query": draw(query | query | query | st.text(max_size=20)),
        "params": draw(params),
        "targetDatabase": engine.value,
        "options": draw(options),
    }


FORMS = ("application/json", "application/x-ndjson", "application/vnd.apache.arrow.stream", "*/*")


@pytest.fixture(scope="module")
def sidecar(all_engines: dict[str, str]) -> Iterator[SidecarProcess]:
    with starting() as start:
        yield start(**all_engines, PLAN2_API_TOKEN=TOKEN)


@pytest.fixture(scope="module")
def ask(sidecar: SidecarProcess) -> Iterator[Ask]:
    """Sends a case and checks what comes back."""
    with requests.Session() as session:

        def ask(case: Any, **more: str) -> None:
            headers = {"Authorization": f"Bearer {TOKEN}", **more}
            response = case.call(base_url=sidecar.url, session=session, headers=headers, timeout=70)
            assert response.status_code != 500, response.text
            case.validate_response(response, checks=CHECKS)

        yield ask


def aimed(case: Any) -> Any:
    """The case with an engine's name where it says which one is meant."""
    if isinstance(case.body, dict) and isinstance(case.body.get("targetDatabase"), str):
        case.body["targetDatabase"] = ENGINES[len(str(case.body)) % len(ENGINES)]
    return case


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_one_that_is_described(ask: Ask, label: str) -> None:
    modes = [GenerationMode.POSITIVE]
    if label not in PLAIN:
        modes.append(GenerationMode.NEGATIVE)
    asked = 0

    for mode in modes:

        @same_on_every_run
        @given(case=OPERATIONS[label].as_strategy(generation_mode=mode).map(aimed))
        def one(case: Any) -> None:
            nonlocal asked
            asked += 1
            ask(case)

        one()

    assert asked == (1 if label in PLAIN else 2 * CASES_OF_EACH_KIND)


@hypothesis.settings(same_on_every_run, max_examples=700)
@given(body=bodies(), accept=st.sampled_from(FORMS))
def test_every_answer_of_an_engine_is_one_that_is_described(
    ask: Ask, body: Any, accept: str
) -> None:
    case = OPERATIONS["POST /api/v2/query"].Case(body=body, media_type="application/json")

    ask(case, Accept=accept)


def test_there_are_at_least_two_thousand_cases() -> None:
    assert (len(OPERATIONS) - len(PLAIN)) * 2 * CASES_OF_EACH_KIND >= 2000


def test_the_description_is_what_is_served(sidecar: SidecarProcess) -> None:
    served = requests.get(f"{sidecar.url}/openapi.json", timeout=10)

    assert served.json() == DOCUMENT
