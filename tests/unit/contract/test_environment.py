"""The classic variables: names and defaults that services have relied on for years."""

import json

import msgspec
import pytest

from plan2_contract import environment
from plan2_contract.connection import KeyValue, Login, MongoDB, Sql, Weaviate
from plan2_contract.engines import Engine
from plan2_contract.environment import InvalidVariable, document


def test_nothing_set_is_nothing_configured() -> None:
    assert list(document({}).engines.configured()) == []


def test_an_empty_host_is_not_configured() -> None:
    assert list(document({"POSTGRES_HOST": "", "MONGODB_URL": ""}).engines.configured()) == []


def test_a_host_alone_gets_the_documented_defaults() -> None:
    found = document(
        {
            "POSTGRES_HOST": "p",
            "DRAGONFLY_HOST": "d",
            "CLICKHOUSE_HOST": "c",
            "WEAVIATE_HOST": "w",
            "ARANGO_URL": "http://a",
            "MONGODB_URL": "mongodb://m",
            "REDIS_HOST": "r",
        }
    ).engines

    assert found.postgresql == Sql(
        host="p",
        port=5432,
        database="aitrading_operational",
        rw=Login(username="postgres", password=""),
        pool_max=20,
    )
    assert found.dragonflydb == KeyValue(host="d", port=6379, rw=None)
    assert found.clickhouse == Sql(
        host="c",
        port=8123,
        database="aitrading_analytics",
        rw=Login(username="default", password=""),
    )
    assert found.weaviate == Weaviate(host="w", port=8080, scheme="http", api_key=None)
    assert found.arangodb == Sql(
        host="a", port=8529, database="aitrading_graph", rw=Login(username="root", password="")
    )
    assert found.mongodb == MongoDB(uri="mongodb://m", database="aitrading_config")
    assert found.redis == KeyValue(host="r", port=6380, rw=None)


def test_every_variable_is_used() -> None:
    found = document(
        {
            "POSTGRES_HOST": "p",
            "POSTGRES_PORT": "1",
            "POSTGRES_DB": "db",
            "POSTGRES_USER": "pu",
            "POSTGRES_PASSWORD": "pp",
            "POSTGRES_POOL_MAX": "7",
            "DRAGONFLY_HOST": "d",
            "DRAGONFLY_PORT": "2",
            "DRAGONFLY_USER": "du",
            "DRAGONFLY_PASSWORD": "dp",
            "WEAVIATE_HOST": "w",
            "WEAVIATE_SCHEME": "https",
            "WEAVIATE_PORT": "3",
            "WEAVIATE_API_KEY": "key",
            "ARANGO_URL": "https://a:4",
            "ARANGO_DB": "graph",
            "ARANGO_USER": "au",
            "ARANGO_PASSWORD": "ap",
            "MONGODB_URL": "mongodb+srv://m/x",
            "MONGODB_DB": "config",
        }
    ).engines

    assert found.postgresql == Sql(
        host="p", port=1, database="db", rw=Login(username="pu", password="pp"), pool_max=7
    )
    assert found.dragonflydb == KeyValue(host="d", port=2, rw=Login(username="du", password="dp"))
    assert found.weaviate == Weaviate(host="w", port=3, scheme="https", api_key="key")
    assert found.arangodb == Sql(
        host="a", port=4, tls=True, database="graph", rw=Login(username="au", password="ap")
    )
    assert found.mongodb == MongoDB(uri="mongodb+srv://m/x", database="config")


HOSTS = {
    "POSTGRES_PORT": "POSTGRES_HOST",
    "DRAGONFLY_PORT": "DRAGONFLY_HOST",
    "CLICKHOUSE_PORT": "CLICKHOUSE_HOST",
    "WEAVIATE_PORT": "WEAVIATE_HOST",
    "REDIS_PORT": "REDIS_HOST",
}


@pytest.mark.parametrize("value", ["0", "65536", "70000", "-1", "http", "5432.0"])
@pytest.mark.parametrize("variable", HOSTS)
def test_a_bad_port_is_refused_with_the_variable_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidVariable, match=f"^{variable}="):
        document({HOSTS[variable]: "h", variable: value})


@pytest.mark.parametrize(
    ("variable", "value", "also"),
    [
        ("POSTGRES_POOL_MAX", "0", {"POSTGRES_HOST": "h"}),
        ("WEAVIATE_SCHEME", "ftp", {"WEAVIATE_HOST": "h"}),
        ("ARANGO_URL", "a:8529", {}),
        ("ARANGO_URL", "http://", {}),
        ("ARANGO_URL", "http://a:70000", {}),
        ("ARANGO_URL", "http://a:port", {}),
        ("ARANGO_URL", "http://[a", {}),
        ("MONGODB_URL", "http://m", {}),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_the_variable_named(
    variable: str, value: str, also: dict[str, str]
) -> None:
    with pytest.raises(InvalidVariable, match=f"^{variable}"):
        document({variable: value, **also})


@pytest.mark.parametrize("variable", ["ARANGO_URL", "MONGODB_URL"])
def test_a_refusal_does_not_repeat_a_password_in_the_address(variable: str) -> None:
    with pytest.raises(InvalidVariable) as refused:
        document({variable: "ftp://root:secret-1@a:8529"})

    assert "secret-1" not in str(refused.value)


def test_the_port_zero_in_an_address_is_refused() -> None:
    with pytest.raises(InvalidVariable, match=r"^ARANGO_URL"):
        document({"ARANGO_URL": "http://a:0"})


def test_the_sidecar_reads_every_name_that_the_injector_offers() -> None:
    values = {"host": "h", "port": "1234", "scheme": "https", "database": "mine"}
    for engine, variables in environment.CLASSIC.items():
        uri = "http://h:1234" if engine is Engine.ARANGODB else "mongodb://h:1234"
        given = {
            name: {"uri": uri, **values}.get(key, f"the {key}") for name, key in variables.items()
        }

        read = json.dumps(msgspec.to_builtins(dict(document(given).engines.configured())[engine]))

        for name, value in given.items():
            expected = '"host": "h"' if name == "ARANGO_URL" else value
            assert expected in read, name
