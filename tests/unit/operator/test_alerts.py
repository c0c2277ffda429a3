"""The PrometheusRule of a resource: there when asked for, about its own engines alone."""

from typing import Any

from plan2_operator import desired, spec


def rule(written: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "prices", "namespace": "team", "uid": "u"}
    platform = spec.decode({"metadata": metadata, "spec": written})
    return next(
        made for made in desired.shared_objects(platform) if made["kind"] == "PrometheusRule"
    )


def test_who_asks_for_it_gets_alerts_on_the_deployed_engines() -> None:
    made = rule(
        {
            "monitoring": {"prometheusRule": True},
            "mongodb": {"enabled": False},
            "redis": {"enabled": True, "external": {"host": "old"}},
        }
    )

    assert made["apiVersion"] == "monitoring.coreos.com/v1"
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("prices", "team")
    rules = made["spec"]["groups"][0]["rules"]
    assert {each["alert"] for each in rules} == {
        "Plan2EngineNotReady",
        "Plan2EngineRestarts",
        "Plan2VolumeAlmostFull",
    }
    for each in rules:
        assert 'namespace="team"' in each["expr"]
        assert "(postgresql|dragonflydb|clickhouse|weaviate|arangodb)" in each["expr"]
        assert each["labels"]["plan2database"] == "prices"
        assert each["annotations"]["summary"]


def test_without_a_deployed_engine_nothing_is_asked_of_prometheus() -> None:
    off = {
        engine: {"enabled": False}
        for engine in ("postgresql", "dragonflydb", "clickhouse", "weaviate", "arangodb", "mongodb")
    }
    metadata = {"name": "prices", "namespace": "team", "uid": "u"}
    body = {"metadata": metadata, "spec": {**off, "monitoring": {"prometheusRule": True}}}

    assert desired.shared_objects(spec.decode(body)) == []
