"""The manifests of every engine against those in the repository.

A difference in a pod's template restarts every database that an upgraded operator finds, so
that each one is read in review. `make golden` renews the files.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from plan2_contract.engines import Engine
from plan2_operator import desired, spec

GOLDEN = Path(__file__).parents[2] / "golden"
UPDATE = os.environ.get("PLAN2_UPDATE_GOLDEN") == "1"
TUNED: Mapping[str, Any] = {
    "image": "registry.example/mirror/engine:18.1@sha256:" + "0" * 64,
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "registry"}],
    "storage": {"size": "100Gi", "storageClassName": "fast"},
    "resources": {
        "requests": {"cpu": "2", "memory": "8Gi"},
        "limits": {"cpu": "4", "memory": "16Gi"},
    },
    "scheduling": {
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "databases", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "databases",
    },
}
SETTINGS: Mapping[Engine, dict[str, Any]] = {
    Engine.POSTGRESQL: {"max_connections": 500, "log_line_prefix": "it's %m"},
    Engine.DRAGONFLYDB: {"cache_mode": "true", "snapshot_cron": "*/30 * * * *"},
    Engine.CLICKHOUSE: {"max_concurrent_queries": 300, "merge_tree/parts_to_throw_insert": 5000},
    Engine.WEAVIATE: {"ENABLE_MODULES": "backup-filesystem"},
    Engine.ARANGODB: {"log.level": "warning"},
    Engine.MONGODB: {"oplogSize": 2048},
    Engine.REDIS: {"maxmemory-policy": "allkeys-lru"},
}
CASES: Mapping[str, dict[str, Any]] = {
    "default": {},
    "tuned": {
        "deletionPolicy": "Delete",
        "networkPolicy": {
            "mode": "labelled",
            "from": [{"namespaceSelector": {"matchLabels": {"team": "reports"}}}],
        },
    },
    "hibernated": {"hibernate": True, "networkPolicy": {"mode": "off"}},
}


@pytest.mark.parametrize("engine", list(Engine), ids=lambda engine: engine.value)
@pytest.mark.parametrize("case", CASES)
def test_golden_manifests_are_those_in_the_repository(engine: Engine, case: str) -> None:
    rendered = render(engine, case)
    golden = GOLDEN / engine.value / f"{case}.yaml"
    if UPDATE:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered)

    assert rendered == golden.read_text(), "read the difference, then run make golden"


def test_golden_holds_no_file_that_no_case_renders() -> None:
    expected = {GOLDEN / engine.value / f"{case}.yaml" for engine in Engine for case in CASES}

    assert set(GOLDEN.rglob("*.yaml")) == expected


def render(engine: Engine, case: str) -> str:
    """Every object of the engine as one stream of YAML documents."""
    block: dict[str, Any] = {"enabled": True}
    if case == "tuned":
        block |= {**TUNED, "configuration": SETTINGS[engine]}
    metadata = {"name": "aitrading", "namespace": "team", "uid": "00000000-uid", "generation": 1}
    platform = spec.decode({"metadata": metadata, "spec": {**CASES[case], engine.value: block}})
    return yaml.dump_all(
        desired.objects(platform)[engine],
        Dumper=_Readable,
        sort_keys=False,
        explicit_start=True,
        width=100,
    )


class _Readable(yaml.SafeDumper):
    """Files within a ConfigMap as blocks, nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _text)
