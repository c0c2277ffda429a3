"""Which image may take over another's volume."""

import pytest

from plan2_contract.engines import Engine
from plan2_operator import spec, versions
from plan2_operator.errors import InvalidSpec

DIGEST = "@sha256:" + "0" * 64


def check(engine: Engine, before: str, after: str) -> None:
    body = {"metadata": {"name": "demo"}, "spec": {engine.value: {"image": after}}}
    versions.check(spec.decode(body).engines[engine], before)


@pytest.mark.parametrize(
    ("engine", "before", "after", "reason"),
    [
        (Engine.POSTGRESQL, "postgres:17.11", "postgres:18.1", "UpgradeRefused"),
        (Engine.POSTGRESQL, "postgres:16.4", f"mirror:5000/pg:17{DIGEST}", "UpgradeRefused"),
        (Engine.POSTGRESQL, "postgres:18", "postgres:17.11", "DowngradeRefused"),
        (Engine.POSTGRESQL, "mirror/postgres:stable", "postgres:18.1", "UpgradeRefused"),
        (Engine.MONGODB, "mongo:8.0.29", "mongo:7.0.1", "DowngradeRefused"),
        (Engine.MONGODB, "mongo:6.0", "mongo:8.0", "UpgradeRefused"),
        (Engine.REDIS, "redis:7.4.11", "redis:7.2-alpine", "DowngradeRefused"),
        (Engine.DRAGONFLYDB, "dragonfly:v1.40.1", "dragonfly:v1.9.0", "DowngradeRefused"),
    ],
)
def test_an_image_that_cannot_read_the_data_is_refused(
    engine: Engine, before: str, after: str, reason: str
) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        check(engine, before, after)

    assert refusal.value.reason == reason
    assert refusal.value.field == f"spec.{engine.value}.image"
    assert before in refusal.value.message


@pytest.mark.parametrize(
    ("engine", "before", "after"),
    [
        (Engine.POSTGRESQL, "postgres:17.11", "postgres:17.2-bookworm"),
        (Engine.POSTGRESQL, "postgres:16", "registry/pg:stable"),
        (Engine.POSTGRESQL, "localhost/test/postgresql:dev", "postgres:17"),
        (Engine.MONGODB, "mongo:7.0", "mongo:8.0"),
        (Engine.MONGODB, "mongo:8.0.29", "mongo:8"),
        (Engine.MONGODB, "mongo:8.0.29", "mongo:latest"),
        (Engine.CLICKHOUSE, "clickhouse:24.8.1", "clickhouse:26.3.20.7"),
        (Engine.WEAVIATE, "weaviate:1.39.0", "weaviate:1.39.0"),
        (Engine.ARANGODB, f"arangodb{DIGEST}", "arangodb:3.12"),
    ],
)
def test_an_image_that_can_or_does_not_say_is_taken(
    engine: Engine, before: str, after: str
) -> None:
    check(engine, before, after)
