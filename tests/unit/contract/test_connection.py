"""The connection document: what is written is read, and what cannot be read is refused."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan2_contract import connection
from plan2_contract.connection import (
    Document,
    Engines,
    KeyValue,
    Login,
    MongoDB,
    Sql,
    UnreadableDocument,
    Weaviate,
)
from plan2_contract.engines import Engine

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = TEXT.filter(bool)
PORTS = st.integers(1, 65535)
POOLS = st.integers(2, 1000)
CERTIFICATES = st.none() | TEXT
LOGINS = st.builds(Login, username=NAMES, password=TEXT)
SQL = st.builds(
    Sql,
    host=NAMES,
    port=PORTS,
    database=NAMES,
    rw=LOGINS,
    ro=st.none() | LOGINS,
    tls=st.booleans(),
    ca_pem=CERTIFICATES,
    pool_max=POOLS,
)
KEY_VALUE = st.builds(
    KeyValue,
    host=NAMES,
    port=PORTS,
    rw=st.none() | LOGINS,
    ro=st.none() | LOGINS,
    tls=st.booleans(),
    ca_pem=CERTIFICATES,
    pool_max=POOLS,
)
WEAVIATE = st.builds(
    Weaviate,
    host=NAMES,
    port=PORTS,
    scheme=st.sampled_from(["http", "https"]),
    grpc_port=PORTS,
    api_key=st.none() | TEXT,
    ca_pem=CERTIFICATES,
    pool_max=POOLS,
)
MONGODB = st.builds(
    MongoDB, uri=NAMES, database=NAMES, ro_uri=st.none() | TEXT, ca_pem=CERTIFICATES, pool_max=POOLS
)
DOCUMENTS = st.builds(
    Document,
    version=st.just(connection.VERSION),
    engines=st.builds(
        Engines,
        postgresql=st.none() | SQL,
        dragonflydb=st.none() | KEY_VALUE,
        clickhouse=st.none() | SQL,
        weaviate=st.none() | WEAVIATE,
        arangodb=st.none() | SQL,
        mongodb=st.none() | MONGODB,
        redis=st.none() | KEY_VALUE,
    ),
    sidecars=st.integers(0, 10_000),
    required_engines=st.lists(st.sampled_from(list(Engine)), max_size=3).map(tuple),
)


@settings(deadline=None)
@given(document=DOCUMENTS)
def test_what_the_operator_writes_the_sidecar_reads(document: Document) -> None:
    assert connection.decode(connection.encode(document)) == document


@settings(deadline=None)
@given(document=DOCUMENTS)
def test_an_equal_document_is_the_same_bytes(document: Document) -> None:
    again = connection.decode(connection.encode(document))

    assert connection.encode(again) == connection.encode(document)


@settings(deadline=None)
@given(document=DOCUMENTS, extra=TEXT.map(lambda text: f"x-{text}"))
def test_keys_this_program_does_not_know_are_ignored(document: Document, extra: str) -> None:
    tree = msgspec.json.decode(connection.encode(document))
    tree[extra] = {"anything": [1]}
    tree["engines"][extra] = {"host": "h"}
    for engine in tree["engines"].values():
        engine[extra] = None

    assert connection.decode(msgspec.json.encode(tree)) == document


def test_the_wire_has_the_documented_names() -> None:
    login = Login(username="u", password="p")
    sql = Sql(host="h", port=1, database="d", rw=login, ca_pem="c", pool_max=5)
    weaviate = Weaviate(host="w", grpc_port=2, api_key="k")
    document = Document(version=1, engines=Engines(postgresql=sql, weaviate=weaviate), sidecars=3)

    tree = msgspec.json.decode(connection.encode(document))

    assert tree == {
        "version": 1,
        "sidecars": 3,
        "engines": {
            "postgresql": {
                "host": "h",
                "port": 1,
                "database": "d",
                "rw": {"username": "u", "password": "p"},
                "caPem": "c",
                "poolMax": 5,
            },
            "weaviate": {"host": "w", "grpcPort": 2, "apiKey": "k"},
        },
    }


def test_a_newer_version_is_refused_whatever_else_it_holds() -> None:
    with pytest.raises(UnreadableDocument, match="version 2 is newer than 1"):
        connection.decode(b'{"version": 2, "engines": "spelled in another way"}')


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b"", "Input data was truncated", id="empty"),
        pytest.param(b"not json", "malformed", id="not JSON"),
        pytest.param(b"[]", "Expected `object`", id="not an object"),
        pytest.param(b'{"engines": {}}', "`version`", id="no version"),
        pytest.param(b'{"version": "1", "engines": {}}', r"\$.version", id="version as text"),
        pytest.param(b'{"version": 1}', "`engines`", id="no engines"),
        pytest.param(
            b'{"version": 1, "engines": {"clickhouse": {"host": "h", "port": "x"}}}',
            r"\$.engines.clickhouse.port",
            id="a port that is no number",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_field_named(data: bytes, complaint: str) -> None:
    with pytest.raises(UnreadableDocument, match=complaint):
        connection.decode(data)


def test_a_refusal_does_not_repeat_the_password() -> None:
    login = b'{"username": 1, "password": "secret-1"}'
    data = b'{"version": 1, "engines": {"postgresql": {"host": "h", "port": 1, "rw": %s}}}' % login

    with pytest.raises(UnreadableDocument) as refused:
        connection.decode(data)

    assert "secret-1" not in str(refused.value)


def test_configured_engines_come_in_the_order_of_the_engines() -> None:
    redis = KeyValue(host="r", port=1)
    postgresql = Sql(host="p", port=1, database="d", rw=Login(username="u", password="p"))

    found = list(Engines(redis=redis, postgresql=postgresql).configured())

    assert found == [(Engine.POSTGRESQL, postgresql), (Engine.REDIS, redis)]


def test_no_password_is_in_a_documents_representation() -> None:
    shown = repr(
        connection.Document(
            version=1,
            engines=connection.Engines(
                postgresql=connection.Sql(
                    host="db",
                    port=5432,
                    database="app",
                    rw=connection.Login(username="app", password="s3cret"),
                ),
                weaviate=connection.Weaviate(host="vectors", api_key="s3cret"),
                mongodb=connection.MongoDB(uri="mongodb://app:s3cret@db/app", database="app"),
            ),
        )
    )

    assert "s3cret" not in shown


def test_an_engine_of_a_newer_operator_is_not_required_of_an_older_sidecar() -> None:
    document = connection.decode(
        b'{"version": 1, "engines": {}, "requiredEngines": ["postgresql", "newdb"]}'
    )

    assert document.required() == {"postgresql"}


def test_a_document_that_is_not_utf_8_is_unreadable() -> None:
    with pytest.raises(connection.UnreadableDocument):
        connection.decode(b'{"version": 1, "engines": {"redis": {"host": "\xff", "port": 1}}}')


def test_a_port_that_is_none_is_refused_with_its_field() -> None:
    with pytest.raises(connection.UnreadableDocument, match=r"redis\.port"):
        connection.decode(b'{"version": 1, "engines": {"redis": {"host": "h", "port": 70000}}}')
