"""The PrometheusRule of a resource: there when asked for, about its engines and its sidecars."""

import re
from typing import Any

from plan2_operator import desired, spec
from plan2_sidecar import metrics


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
        "Plan2OperationDead",
        "Plan2AnalyticsDropped",
    }
    for each in rules:
        assert 'namespace="team"' in each["expr"]
        of_engines = "(postgresql|dragonflydb|clickhouse|weaviate|arangodb)" in each["expr"]
        assert of_engines is ("plan2_sidecar_" not in each["expr"])
        assert each["labels"]["plan2database"] == "prices"
        assert each["annotations"]["summary"]


def test_what_is_asked_of_sidecars_is_what_they_tell() -> None:
    rules = rule({"monitoring": {"prometheusRule": True}})["spec"]["groups"][0]["rules"]

    asked = {name for each in rules for name in re.findall(r"plan2_sidecar_\w+", each["expr"])}

    assert len(asked) == 2
    assert asked <= set(re.findall(r"plan2_sidecar_\w+", metrics.__doc__ or ""))


def test_sidecars_of_engines_that_run_elsewhere_are_watched_too() -> None:
    elsewhere = {"enabled": True, "external": {"host": "db.example.com"}}
    others = ("dragonflydb", "clickhouse", "weaviate", "arangodb", "mongodb")
    off = {engine: {"enabled": False} for engine in others}

    made = rule({**off, "postgresql": elsewhere, "monitoring": {"prometheusRule": True}})

    rules = made["spec"]["groups"][0]["rules"]
    assert [each["alert"] for each in rules] == ["Plan2OperationDead"]


def test_without_an_engine_nothing_is_asked_of_prometheus() -> None:
    off = {
        engine: {"enabled": False}
        for engine in ("postgresql", "dragonflydb", "clickhouse", "weaviate", "arangodb", "mongodb")
    }
    metadata = {"name": "prices", "namespace": "team", "uid": "u"}
    body = {"metadata": metadata, "spec": {**off, "monitoring": {"prometheusRule": True}}}

    assert desired.shared_objects(spec.decode(body)) == []
