"""From a resource's body to a platform: defaults, the user's word over them, refusals."""

from typing import Any

import pytest

from fixtures.refused_specs import REFUSED, Refused
from plan2_contract.engines import DATABASES, PORTS, SIX, Engine
from plan2_operator import spec
from plan2_operator.catalog import Catalog
from plan2_operator.errors import InvalidSpec
from plan2_operator.model import Bootstrap, Collection, EngineSpec, Platform


def decoded(written: dict[str, Any] | None = None, name: str = "demo") -> Platform:
    metadata = {"name": name, "namespace": "team", "uid": "u-1", "generation": 3}
    return spec.decode({"metadata": metadata, "spec": written or {}})


def engine(name: Engine, block: dict[str, Any]) -> EngineSpec:
    return decoded({name.value: block}).engines[name]


def test_an_empty_spec_is_the_six_engines_with_defaults() -> None:
    platform = decoded()

    assert [each.engine for each in platform.enabled()] == list(SIX)
    assert platform.managed() == platform.enabled()
    assert {each.engine: each.port for each in platform.enabled()}.items() <= PORTS.items()
    for known, database in DATABASES.items():
        assert platform.engines[known].database == database
    assert platform.engines[Engine.POSTGRESQL].image == "postgres:17.11"
    assert platform.engines[Engine.DRAGONFLYDB].storage.size == "2Gi"
    assert platform.engines[Engine.POSTGRESQL].memory_limit_bytes == 2**30


def test_a_body_without_a_spec_is_an_empty_spec() -> None:
    assert spec.decode({"metadata": {"name": "demo"}}).enabled()


def test_the_installation_overrides_images_and_namespace() -> None:
    known = Catalog(
        operator_namespace="operators",
        images={Engine.REDIS: "registry.example/redis:1"},
        image_pull_policy="Never",
    )

    platform = spec.decode({"metadata": {"name": "demo"}}, known)

    assert platform.engines[Engine.REDIS].image == "registry.example/redis:1"
    assert platform.engines[Engine.MONGODB].image == "mongo:8.0.29"
    assert platform.engines[Engine.MONGODB].image_pull_policy == "Never"
    assert platform.operator_namespace == "operators"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_breaks_a_rule_is_refused_with_its_field_named(case: Refused) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        decoded(case.spec, case.name)

    assert refusal.value.field == case.field
    assert case.message is None or refusal.value.message.startswith(case.message)
    assert str(refusal.value).startswith(f"{case.field}: ")


def test_a_value_of_the_wrong_type_is_refused_with_its_field_named() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec\.redis\.enabled: Expected `bool`"):
        decoded({"redis": {"enabled": "yes"}})


def test_an_external_engine_is_enabled_and_not_managed() -> None:
    block = {"external": {"host": "db", "tls": True, "credentialsSecretRef": {"name": "mine"}}}

    external = engine(Engine.WEAVIATE, block)

    assert (external.enabled, external.managed) == (True, False)
    assert external.external is not None
    assert external.external.port == 8080
    assert external.external.grpc_port == 50051
    assert external.external.credentials_secret == "mine"


def test_a_disabled_external_engine_is_not_enabled() -> None:
    assert not engine(Engine.REDIS, {"external": {"host": "old-redis"}}).enabled


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, {"cpu": "100m", "memory": "256Mi"}, {"memory": "1Gi"}),
        (
            {"requests": {"memory": "2Gi"}},
            {"cpu": "100m", "memory": "2Gi"},
            {"memory": "2Gi"},
        ),
        (
            {"limits": {"memory": "128Mi", "cpu": 2}},
            {"cpu": "100m", "memory": "128Mi"},
            {"memory": "128Mi", "cpu": "2"},
        ),
        (
            {"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}},
            {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "1Gi"},
            {"memory": "1Gi"},
        ),
    ],
    ids=["nothing", "request-above-default-limit", "limit-below-default-request", "others"],
)
def test_a_default_gives_way_to_what_the_user_says(
    given: dict[str, Any], requests: dict[str, str], limits: dict[str, str]
) -> None:
    resources = engine(Engine.POSTGRESQL, {"resources": given}).resources

    assert dict(resources.requests) == requests
    assert dict(resources.limits) == limits


def test_settings_become_text_in_a_fixed_order() -> None:
    block = {"configuration": {"work_mem": "8MB", "max_connections": 300}}

    configuration = engine(Engine.POSTGRESQL, block).configuration

    assert list(configuration.items()) == [("max_connections", "300"), ("work_mem", "8MB")]


def test_bootstrap_and_collections_are_read() -> None:
    platform = decoded(
        {
            "postgresql": {"bootstrap": {"sql": ["CREATE TABLE a ()"]}},
            "clickhouse": {"bootstrap": {"configMapRef": {"name": "scripts"}}},
            "arangodb": {"collections": [{"name": "a"}, {"name": "b", "type": "edge"}]},
            "weaviate": {"collections": [{"class": "Item", "vectorizer": "none"}]},
        }
    )

    engines = platform.engines
    assert engines[Engine.POSTGRESQL].bootstrap.sql == ("CREATE TABLE a ()",)
    assert engines[Engine.CLICKHOUSE].bootstrap.config_map == "scripts"
    assert engines[Engine.ARANGODB].bootstrap.collections == (
        Collection(name="a"),
        Collection(name="b", type="edge"),
    )
    assert engines[Engine.WEAVIATE].bootstrap.classes == ({"class": "Item", "vectorizer": "none"},)


def test_scripts_of_a_config_map_follow_in_the_order_of_their_keys() -> None:
    bootstrap = Bootstrap(sql=("first",), config_map="scripts")

    filled = spec.with_scripts(bootstrap, {"2.sql": "third", "1.sql": "second"})

    assert filled.sql == ("first", "second", "third")


def test_a_volume_may_grow_and_never_shrinks() -> None:
    wanted = engine(Engine.MONGODB, {"storage": {"size": "10Gi"}})

    spec.check_storage(wanted, "10737418240")
    spec.check_storage(wanted, "9Gi")
    with pytest.raises(InvalidSpec) as refusal:
        spec.check_storage(wanted, "10.5Gi")

    assert refusal.value.reason == "StorageShrinkRefused"
    assert refusal.value.field == "spec.mongodb.storage.size"


def test_the_sidecar_block_is_read() -> None:
    sidecar = decoded(
        {
            "sidecar": {
                "requiredEngines": ["postgresql"],
                "limits": {"maxBodyBytes": 1024},
                "routing": {"tables": {"trades": "clickhouse"}},
            }
        }
    ).sidecar

    assert sidecar.required_engines == (Engine.POSTGRESQL,)
    assert sidecar.max_body_bytes == 1024
    assert sidecar.tables == {"trades": Engine.CLICKHOUSE}
    assert sidecar.resources.limits == {"memory": "192Mi"}
