"""The user's own Secret on a real API server: taken over, given up, and no data lost by it."""

from typing import Any

import pytest

from fixtures.operator_lab import Lab
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds

pytestmark = pytest.mark.cluster

OFF: dict[str, Any] = {engine.value: {"enabled": False} for engine in SIX}
MINE = {"enabled": True, "credentialsSecretRef": {"name": "mine"}}
ADMIN = "prices-postgresql-admin"


async def given(lab: Lab, **values: str) -> None:
    """The Secret `mine` holds `values`."""
    live = await lab.cluster.get(kinds.SECRET, lab.namespace, "mine")
    if live is not None:
        await lab.cluster.patch(kinds.SECRET, live, {"stringData": values})
        return
    await lab.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mine", "namespace": lab.namespace},
            "stringData": values,
        }
    )


async def test_a_secret_that_did_not_open_the_volume_is_given_up_without_a_trace(lab: Lab) -> None:
    key = await lab.create("prices", {**OFF, "postgresql": {"enabled": True}})
    await lab.run(key)
    await lab.start(key, Engine.POSTGRESQL)
    await lab.settle(key)
    admin, recovery = await lab.secret(ADMIN), await lab.secret("prices-recovery")
    await given(lab, password="not-the-right-one")
    lab.provisioner.error = RuntimeError("refused")
    await lab.change(key, {"postgresql": MINE})
    await lab.settle(key)
    assert (await lab.secret(ADMIN))["password"] == "not-the-right-one"

    await lab.change(key, {"postgresql": {"credentialsSecretRef": None}})
    await lab.settle(key)

    assert await lab.secret(ADMIN) == admin
    assert await lab.secret("prices-recovery") == recovery
    versions = await lab.versions(key)
    await lab.run(key)
    assert await lab.versions(key) == versions


async def test_a_secret_that_opened_the_volume_is_kept_when_it_is_no_longer_named(
    lab: Lab,
) -> None:
    key = await lab.create("prices", {**OFF, "postgresql": {"enabled": True}})
    await lab.run(key)
    await lab.start(key, Engine.POSTGRESQL)
    await lab.settle(key)
    await given(lab, password="changed-in-the-engine-first")
    await lab.change(key, {"postgresql": MINE})
    await lab.settle(key)
    assert (await lab.status(key))["phase"] == "Ready"
    await given(lab, password="a-slip")
    lab.provisioner.error = RuntimeError("refused")
    await lab.settle(key)
    await given(lab, password="changed-in-the-engine-first")
    lab.provisioner.error = None
    lab.reconciler = lab.restarted()
    await lab.settle(key)

    await lab.change(key, {"postgresql": {"credentialsSecretRef": None}})
    await lab.settle(key)

    assert (await lab.secret(ADMIN))["password"] == "changed-in-the-engine-first"
    recovery = await lab.secret("prices-recovery")
    assert recovery["postgresql.password"] == "changed-in-the-engine-first"


@pytest.mark.parametrize(
    ("engine", "part", "rolls"),
    [
        (Engine.DRAGONFLYDB, "password", True),
        (Engine.REDIS, "password", True),
        (Engine.CLICKHOUSE, "password", True),
        (Engine.WEAVIATE, "api-key", True),
        (Engine.POSTGRESQL, "password", False),
    ],
    ids=lambda value: str(value),
)
async def test_a_changed_secret_replaces_the_pod_of_an_engine_that_reads_it_at_its_start(
    lab: Lab, engine: Engine, part: str, rolls: bool
) -> None:
    await given(lab, **{part: "first"})
    key = await lab.create("prices", {**OFF, engine.value: MINE})
    await lab.run(key)
    before = await lab.read(kinds.STATEFUL_SET, f"prices-{engine}")
    await lab.run(key)
    same = await lab.read(kinds.STATEFUL_SET, f"prices-{engine}")
    assert same["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    await given(lab, **{part: "second"})

    await lab.run(key)

    after = await lab.read(kinds.STATEFUL_SET, f"prices-{engine}")
    changed = after["spec"]["template"] != before["spec"]["template"]
    assert changed == rolls


async def test_a_password_that_ends_in_a_line_break_is_refused_by_name(lab: Lab) -> None:
    await given(lab, password="from-echo\n")
    key = await lab.create("prices", {**OFF, "postgresql": MINE})

    await lab.run(key)

    stalled = await lab.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "CredentialsInvalid")
    assert "password of the Secret mine" in stalled["message"]
    assert "from-echo" not in stalled["message"]


async def test_what_an_application_binds_to_keeps_nothing_of_another_time(lab: Lab) -> None:
    await given(lab, username="old", password="of-another-server")
    external = {"host": "old.example.com", "credentialsSecretRef": {"name": "mine"}}
    redis = {"enabled": True, "external": external}
    key = await lab.create("prices", {**OFF, "redis": redis})
    await lab.run(key)
    assert (await lab.secret("prices-redis-app"))["password"] == "of-another-server"

    await lab.change(key, {"redis": {"external": {"credentialsSecretRef": None}}})
    await lab.run(key)

    assert await lab.secret("prices-redis-app") == {
        "type": "redis",
        "provider": "plan2",
        "host": "old.example.com",
        "port": "6380",
        "uri": "redis://old.example.com:6380",
    }


async def test_a_certificate_that_is_none_is_refused_by_name(lab: Lab) -> None:
    await given(lab, password="right", **{"ca.crt": "not a certificate"})
    reference = {"credentialsSecretRef": {"name": "mine"}}
    external = {"host": "db.example.com", "tls": True, **reference}
    key = await lab.create("prices", {**OFF, "postgresql": {"enabled": True, "external": external}})

    await lab.run(key)

    stalled = await lab.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "CredentialsInvalid")
    assert "ca.crt of the Secret mine" in stalled["message"]
