"""The reconcile on a real API server: what is made, what is left alone, what is repaired."""

from typing import Any

import pytest

from fixtures import operator_lab
from fixtures.operator_lab import Lab
from plan2_contract import connection, names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.cluster import ClusterError, Manifest

pytestmark = pytest.mark.cluster

ONLY_POSTGRESQL: dict[str, Any] = {
    engine.value: {"enabled": False} for engine in SIX if engine is not Engine.POSTGRESQL
}
TWO: dict[str, Any] = {
    engine.value: {"enabled": False}
    for engine in SIX
    if engine not in (Engine.POSTGRESQL, Engine.MONGODB)
}


async def test_an_empty_spec_gets_the_objects_and_secrets_of_all_six(lab: Lab) -> None:
    key = await lab.create("prices", {})

    await lab.run(key)

    owned = await lab.owned(key)
    for engine in SIX:
        name = names.engine_object("prices", engine)
        for kind in ("StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"):
            assert (kind, name) in owned
        assert ("Service", names.headless_service("prices", engine)) in owned
        assert ("Secret", names.admin_secret("prices", engine)) in owned
        assert ("Secret", names.app_secret("prices", engine)) in owned
    assert ("StatefulSet", "prices-redis") not in owned
    for name in ("prices-connection", "prices-api-token", "prices-recovery"):
        assert ("Secret", name) in owned


async def test_a_second_reconcile_changes_nothing(lab: Lab) -> None:
    key = await lab.create("prices", {})
    await lab.run(key)
    before = await lab.versions(key)

    await lab.run(key)
    await lab.restarted().run(key)

    assert await lab.versions(key) == before


async def test_a_ready_resource_is_idle(lab: Lab) -> None:
    key = await lab.create("prices", {"redis": {"enabled": True}})
    await lab.run(key)
    await lab.start(key, *Engine)
    await lab.settle(key)
    status = await lab.status(key)
    assert (status["phase"], status["enginesReady"]) == ("Ready", "7/7"), status["engines"]
    assert (await lab.condition(key, "Ready"))["status"] == "True"
    before = await lab.versions(key)

    pause = await lab.run(key)
    await lab.restarted().run(key)

    assert await lab.versions(key) == before
    assert pause == lab.reconciler.settings.resync_seconds


@pytest.mark.parametrize("kind", kinds.OWNED, ids=lambda kind: kind.name)
async def test_a_deleted_object_comes_back(lab: Lab, kind: kinds.Kind) -> None:
    key = await lab.create("prices", ONLY_POSTGRESQL)
    await lab.run(key)
    live = await lab.read(kind, "prices-postgresql")
    await lab.cluster.delete(kind, live)

    await lab.run(key)

    again = await lab.read(kind, "prices-postgresql")
    assert again["metadata"]["uid"] != live["metadata"]["uid"]


async def test_an_edited_field_of_ours_is_undone_and_a_foreign_one_survives(lab: Lab) -> None:
    key = await lab.create("prices", ONLY_POSTGRESQL)
    await lab.run(key)
    live = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    edit: Manifest = {
        "metadata": {"annotations": {"example.com/note": "mine"}},
        "spec": {"replicas": 3},
    }
    await lab.cluster.patch(kinds.STATEFUL_SET, live, edit)

    await lab.run(key)

    repaired = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert repaired["spec"]["replicas"] == 1
    assert repaired["metadata"]["annotations"]["example.com/note"] == "mine"


async def test_an_edited_port_of_a_service_is_undone(lab: Lab) -> None:
    """Ports are merged by number: applied alone, ours would stand beside the edited one."""
    key = await lab.create("prices", ONLY_POSTGRESQL)
    await lab.run(key)
    live = await lab.read(kinds.SERVICE, "prices-postgresql")
    wanted = live["spec"]["ports"]
    edited = [{**wanted[0], "port": 9999}]
    await lab.cluster.patch(kinds.SERVICE, live, {"spec": {"ports": edited}})

    await lab.run(key)

    repaired = await lab.read(kinds.SERVICE, "prices-postgresql")
    assert repaired["spec"]["ports"] == wanted


async def test_a_disabled_engine_is_pruned_and_its_secrets_and_volume_stay(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    await lab.volume(key, Engine.MONGODB)
    await lab.change(key, {"mongodb": {"enabled": False}})

    await lab.run(key)

    owned = await lab.owned(key)
    assert [name for kind, name in owned if "mongodb" in name and kind != "Secret"] == []
    assert ("StatefulSet", "prices-postgresql") in owned
    assert ("Secret", "prices-mongodb-admin") in owned
    await lab.read(kinds.VOLUME_CLAIM, "data-prices-mongodb-0")


async def test_a_policy_that_is_turned_off_is_pruned(lab: Lab) -> None:
    key = await lab.create("prices", ONLY_POSTGRESQL)
    await lab.run(key)
    assert ("NetworkPolicy", "prices-postgresql") in await lab.owned(key)
    await lab.change(key, {"networkPolicy": {"mode": "off"}})

    await lab.run(key)

    assert ("NetworkPolicy", "prices-postgresql") not in await lab.owned(key)


async def test_what_is_not_ours_is_never_pruned(lab: Lab) -> None:
    key = await lab.create("prices", ONLY_POSTGRESQL)
    for name, labels in (
        ("unlabelled", {}),
        ("labelled-like-ours", names.shared_labels("prices")),
        ("of-a-disabled-engine", names.labels("prices", Engine.MONGODB)),
    ):
        await lab.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": lab.namespace, "labels": labels},
            }
        )

    await lab.run(key)
    await lab.run(key)

    for name in ("unlabelled", "labelled-like-ours", "of-a-disabled-engine"):
        await lab.read(kinds.CONFIG_MAP, name)


async def test_an_external_engine_is_wired_and_not_deployed(lab: Lab) -> None:
    await lab.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mine", "namespace": lab.namespace},
            "stringData": {"username": "trader", "password": "s3cret"},
        }
    )
    external = {
        "host": "db.example.com",
        "port": 5433,
        "tls": True,
        "credentialsSecretRef": {"name": "mine"},
    }
    key = await lab.create("prices", {**TWO, "postgresql": {"external": external}})

    await lab.run(key)

    owned = await lab.owned(key)
    assert ("StatefulSet", "prices-postgresql") not in owned
    assert ("Secret", "prices-postgresql-admin") not in owned
    data = await lab.secret("prices-connection")
    engines = connection.decode(data[connection.KEY].encode()).engines
    assert engines.postgresql is not None
    assert (engines.postgresql.host, engines.postgresql.port) == ("db.example.com", 5433)
    assert engines.postgresql.rw.password == "s3cret"
    assert engines.mongodb is not None
    assert (await lab.secret("prices-postgresql-app"))["username"] == "trader"
    assert (await lab.status(key))["engines"]["postgresql"]["phase"] == "External"


async def test_the_document_is_there_before_any_engine_is_ready(lab: Lab) -> None:
    key = await lab.create("prices", {})

    await lab.run(key)

    document = connection.decode((await lab.secret("prices-connection"))[connection.KEY].encode())
    assert [engine for engine, _ in document.engines.configured()] == list(SIX)
    assert (await lab.condition(key, "Ready"))["status"] == "False"


async def test_a_broken_engine_holds_up_none_of_the_others(lab: Lab) -> None:
    key = await lab.create("prices", {"mongodb": {"image": "no-such-image:1"}})
    await lab.run(key)
    await lab.start(key, *(engine for engine in SIX if engine is not Engine.MONGODB))
    await lab.pod(
        "prices-mongodb-0",
        labels=names.labels("prices", Engine.MONGODB),
        waiting="ImagePullBackOff",
    )

    await lab.settle(key)

    status = await lab.status(key)
    phases = {engine: block["phase"] for engine, block in status["engines"].items()}
    assert {phases[engine] for engine in SIX if engine is not Engine.MONGODB} == {"Ready"}
    assert phases["mongodb"] == "Failed"
    assert status["phase"] == "Degraded"
    assert "mongodb" in (await lab.condition(key, "Ready"))["message"]
    assert "EngineFailed" in [reason for reason, _ in await lab.events("prices")]


async def test_a_setting_that_cannot_be_used_stalls_its_engine_alone(lab: Lab) -> None:
    bad = {"configuration": {"max_connections": "many"}}
    key = await lab.create("prices", {**TWO, "postgresql": bad})

    await lab.run(key)

    owned = await lab.owned(key)
    assert ("StatefulSet", "prices-mongodb") in owned
    assert ("StatefulSet", "prices-postgresql") not in owned
    stalled = await lab.condition(key, "Stalled")
    assert stalled["status"] == "True"
    assert "spec.postgresql.configuration.max_connections" in stalled["message"]


async def test_a_running_engine_stays_in_the_document_when_its_spec_turns_bad(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    before = await lab.secret("prices-connection")
    bad = {"configuration": {"max_connections": "many"}}
    await lab.change(key, {"postgresql": bad})

    await lab.run(key)

    assert await lab.secret("prices-connection") == before


async def test_a_field_that_cannot_change_is_reported_and_does_not_crash(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    live = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    await lab.cluster.delete(kinds.STATEFUL_SET, live)
    foreign = {
        **live,
        "metadata": {key: live["metadata"][key] for key in ("name", "namespace", "labels")},
        "spec": {**live["spec"], "serviceName": "another"},
    }
    foreign.pop("status", None)
    await lab.cluster.create(foreign)

    await lab.run(key)

    engines = (await lab.status(key))["engines"]
    assert engines["postgresql"]["phase"] == "Failed"
    assert "spec.serviceName" in engines["postgresql"]["message"]
    assert engines["mongodb"]["phase"] != "Failed"


async def test_a_paused_resource_is_left_as_it_is(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    live = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    await lab.cluster.patch(kinds.STATEFUL_SET, live, {"spec": {"replicas": 0}})
    service = await lab.read(kinds.SERVICE, "prices-mongodb")
    await lab.cluster.delete(kinds.SERVICE, service)
    await lab.change(key, {"paused": True, "postgresql": {"image": "postgres:99"}})

    await lab.run(key)

    live = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert live["spec"]["replicas"] == 0
    assert ("Service", "prices-mongodb") not in await lab.owned(key)
    assert (await lab.status(key))["phase"] == "Paused"

    await lab.change(key, {"paused": False})
    await lab.run(key)
    assert ("Service", "prices-mongodb") in await lab.owned(key)


async def test_a_hibernating_resource_has_no_pods_and_keeps_everything_else(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    before = set(await lab.owned(key))
    await lab.change(key, {"hibernate": True})

    await lab.run(key)

    for engine in (Engine.POSTGRESQL, Engine.MONGODB):
        live = await lab.read(kinds.STATEFUL_SET, names.engine_object("prices", engine))
        assert live["spec"]["replicas"] == 0
    assert set(await lab.owned(key)) == before
    assert (await lab.condition(key, "Ready"))["reason"] == "Hibernated"


async def test_a_resource_that_is_being_deleted_is_left_to_the_cluster(lab: Lab) -> None:
    key = await lab.create("prices", ONLY_POSTGRESQL)
    await lab.run(key)
    live = await lab.read(kinds.PLATFORM, "prices")
    held = await lab.cluster.patch(
        kinds.PLATFORM, live, {"metadata": {"finalizers": ["example.com/held"]}}
    )
    await lab.cluster.delete(kinds.PLATFORM, held)
    service = await lab.read(kinds.SERVICE, "prices-postgresql")
    await lab.cluster.delete(kinds.SERVICE, service)

    assert await lab.run(key) is None

    assert ("Service", "prices-postgresql") not in await lab.owned(key)


async def test_the_resource_itself_carries_nothing_of_the_operator_but_status(lab: Lab) -> None:
    key = await lab.create("prices", ONLY_POSTGRESQL)

    await lab.run(key)

    meta = (await lab.read(kinds.PLATFORM, "prices"))["metadata"]
    assert "finalizers" not in meta
    assert "annotations" not in meta


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kinds.SERVICE_MONITOR, "serviceMonitor"), (kinds.PROMETHEUS_RULE, "prometheusRule")],
    ids=["ServiceMonitor", "PrometheusRule"],
)
async def test_an_optional_kind_is_applied_where_the_cluster_serves_it_and_pruned(
    lab: Lab, kind: kinds.Kind, field: str
) -> None:
    key = await lab.create("prices", {**ONLY_POSTGRESQL, "monitoring": {field: True}})
    await lab.run(key)
    await serve(lab, kind)

    await lab.cluster.refresh_optional()
    await lab.run(key)

    made = await lab.read(kind, "prices")
    assert made["metadata"]["ownerReferences"]
    await lab.run(key)
    assert await lab.read(kind, "prices") == made
    await lab.change(key, {"monitoring": {field: False}})
    await lab.run(key)
    assert await lab.cluster.get(kind, lab.namespace, "prices") is None


async def serve(lab: Lab, kind: kinds.Kind) -> None:
    """A CRD that takes anything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    await operator_lab.install(
        lab.cluster,
        {
            "apiVersion": operator_lab.DEFINITION.api_version,
            "kind": operator_lab.DEFINITION.name,
            "metadata": {"name": f"{kind.plural}.{kind.group}"},
            "spec": {
                "group": kind.group,
                "scope": "Namespaced",
                "names": {"kind": kind.name, "plural": kind.plural},
                "versions": [version],
            },
        },
    )

    async def lists() -> bool:
        # A new CRD is announced before its storage is ready.
        try:
            await lab.cluster.list(kind, lab.namespace, {})
        except ClusterError:
            return False
        return await lab.cluster.has(kind)

    await operator_lab.until(lists, seconds=30)
