"""The Secrets on a real API server: each password generated once, restored, never made anew."""

import asyncio
import itertools
from typing import Any

import pytest

from fixtures.operator_lab import Lab
from plan2_contract import names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.cluster import Cluster, ClusterError, Manifest

pytestmark = pytest.mark.cluster

TWO: dict[str, Any] = {
    engine.value: {"enabled": False}
    for engine in SIX
    if engine not in (Engine.POSTGRESQL, Engine.MONGODB)
}
ADMIN = "prices-postgresql-admin"
RECOVERY = "prices-recovery"


async def delete_secret(lab: Lab, name: str) -> None:
    await lab.cluster.delete(kinds.SECRET, await lab.read(kinds.SECRET, name))


@pytest.mark.parametrize("volume", [False, True], ids=["without volume", "with volume"])
async def test_a_deleted_admin_secret_comes_back_with_the_same_passwords(
    lab: Lab, volume: bool
) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    if volume:
        await lab.volume(key, Engine.POSTGRESQL)
    before = await lab.secret(ADMIN)
    await delete_secret(lab, ADMIN)

    await lab.restarted().run(key)

    assert await lab.secret(ADMIN) == before


async def test_a_deleted_recovery_secret_is_filled_from_the_admin_secrets(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    before = await lab.secret(RECOVERY)
    await delete_secret(lab, RECOVERY)

    await lab.restarted().run(key)

    assert await lab.secret(RECOVERY) == before
    assert before["postgresql.password"] == (await lab.secret(ADMIN))["password"]


async def test_a_lost_key_of_an_admin_secret_is_restored(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    await lab.volume(key, Engine.POSTGRESQL)
    before = await lab.secret(ADMIN)
    live = await lab.read(kinds.SECRET, ADMIN)
    await lab.cluster.patch(kinds.SECRET, live, {"data": {"password": None}})

    await lab.run(key)

    assert await lab.secret(ADMIN) == before


async def test_both_copies_gone_with_a_volume_is_credentials_lost(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    await lab.volume(key, Engine.POSTGRESQL)
    await delete_secret(lab, ADMIN)
    await delete_secret(lab, RECOVERY)

    await lab.restarted().run(key)

    assert await lab.cluster.get(kinds.SECRET, lab.namespace, ADMIN) is None
    assert "postgresql.password" not in await lab.secret(RECOVERY)
    status = await lab.status(key)
    assert status["engines"]["postgresql"]["phase"] == "Failed"
    assert status["engines"]["mongodb"]["phase"] != "Failed"
    stalled = await lab.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "CredentialsLost")
    assert "CredentialsLost" in [reason for reason, _ in await lab.events("prices")]


async def test_both_copies_gone_without_a_volume_is_a_fresh_start(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    before = await lab.secret(ADMIN)
    await delete_secret(lab, ADMIN)
    await delete_secret(lab, RECOVERY)

    await lab.restarted().run(key)

    assert (await lab.secret(ADMIN))["password"] != before["password"]


async def test_secrets_belong_to_the_resource_under_delete_and_to_nobody_under_retain(
    lab: Lab,
) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)

    async def owners() -> set[str]:
        uids = set()
        for (kind, _), live in (await lab.owned(key)).items():
            if kind == "Secret":
                found = live["metadata"].get("ownerReferences") or [{"uid": ""}]
                uids |= {owner["uid"] for owner in found}
        return uids

    assert await owners() == {""}
    await lab.change(key, {"deletionPolicy": "Delete"})
    await lab.run(key)
    uid = (await lab.read(kinds.PLATFORM, "prices"))["metadata"]["uid"]
    assert await owners() == {uid}
    await lab.change(key, {"deletionPolicy": "Retain"})
    await lab.run(key)
    assert await owners() == {""}


async def test_a_new_resource_of_the_same_name_adopts_the_old_passwords(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    await lab.volume(key, Engine.POSTGRESQL)
    before = await lab.secret(ADMIN)
    await lab.cluster.delete(kinds.PLATFORM, await lab.read(kinds.PLATFORM, "prices"))
    await lab.run(key)
    await lab.create("prices", TWO)

    await lab.run(key)

    assert await lab.secret(ADMIN) == before


async def test_the_users_own_credentials_are_taken_and_not_put_into_recovery(lab: Lab) -> None:
    await lab.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mine", "namespace": lab.namespace},
            "stringData": {"password": "ours-for-years"},
        }
    )
    own = {"credentialsSecretRef": {"name": "mine"}}
    key = await lab.create("prices", {**TWO, "postgresql": own})

    await lab.run(key)

    assert (await lab.secret(ADMIN))["password"] == "ours-for-years"
    recovery = await lab.secret(RECOVERY)
    assert "postgresql.password" not in recovery
    assert "postgresql.app-password" in recovery


async def test_a_missing_secret_of_the_user_fails_its_engine_by_name(lab: Lab) -> None:
    missing = {"credentialsSecretRef": {"name": "not-there"}}
    key = await lab.create("prices", {**TWO, "postgresql": missing})

    await lab.run(key)

    block = (await lab.status(key))["engines"]["postgresql"]
    assert block["phase"] == "Failed"
    assert "not-there" in block["message"]
    assert ("StatefulSet", "prices-mongodb") in await lab.owned(key)


async def test_the_api_token_is_made_once_and_a_users_line_survives(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    token = (await lab.secret("prices-api-token"))["token"]
    live = await lab.read(kinds.SECRET, "prices-api-token")
    two_lines = {"stringData": {"token": f"new\n{token}"}}
    await lab.cluster.patch(kinds.SECRET, live, two_lines)

    await lab.run(key)
    assert (await lab.secret("prices-api-token"))["token"] == f"new\n{token}"

    await delete_secret(lab, "prices-api-token")
    await lab.run(key)
    assert (await lab.secret("prices-api-token"))["token"] == f"new\n{token}"


class Killed(BaseException):
    """The operator was killed."""


class Mortal(Cluster):
    """A connection of an operator that is killed at its n-th write, sent or not."""

    def __init__(self, alive: Cluster, writes: int, *, sent: bool) -> None:
        super().__init__(alive._client)
        self._left = writes
        self._sent = sent

    async def _request(self, method: str, path: str, **options: Any) -> Manifest:
        if method == "get":
            return await super()._request(method, path, **options)
        self._left -= 1
        if self._left < 0:
            raise Killed
        if self._left == 0 and self._sent:
            await super()._request(method, path, **options)
        if self._left == 0:
            raise Killed
        return await super()._request(method, path, **options)


@pytest.mark.parametrize("sent", [False, True], ids=["write lost", "write done"])
async def test_killed_at_any_write_each_password_is_still_generated_once(
    lab: Lab, sent: bool
) -> None:
    for writes in itertools.count(1):
        name = f"killed-{writes}"
        key = await lab.create(name, TWO)
        try:
            await lab.restarted(Mortal(lab.cluster, writes, sent=sent)).run(key)
        except Killed:
            pass
        else:
            break
        seen = await all_values(lab, name)

        await lab.restarted().run(key)

        after = await all_values(lab, name)
        assert {identity: after[identity] for identity in seen} == seen
        for engine in (Engine.POSTGRESQL, Engine.MONGODB):
            admin = await lab.secret(names.admin_secret(name, engine))
            for part in ("password", "app-password", "ro-password"):
                assert after["recovery", f"{engine}.{part}"] == admin[part]
    assert writes > 20, "the kills must reach every write of a first reconcile"


async def all_values(lab: Lab, cr: str) -> dict[tuple[str, str], str]:
    """What stands in the Secrets of passwords, by Secret and key."""
    found = {}
    for part in ("postgresql-admin", "mongodb-admin", "recovery"):
        name = f"{cr}-{part}"
        if await lab.cluster.get(kinds.SECRET, lab.namespace, name) is not None:
            found |= {(part, key): value for key, value in (await lab.secret(name)).items()}
    return found


async def test_two_operators_at_once_agree_on_the_passwords(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    first, second = lab.restarted(), lab.restarted()

    for _ in range(3):
        await asyncio.gather(first.run(key), second.run(key), return_exceptions=True)

    recovery = await lab.secret(RECOVERY)
    assert recovery["postgresql.password"] == (await lab.secret(ADMIN))["password"]


async def test_no_password_is_told_in_an_error(lab: Lab) -> None:
    key = await lab.create("prices", TWO)
    await lab.run(key)
    live = await lab.read(kinds.SECRET, ADMIN)
    password = (await lab.secret(ADMIN))["password"]
    stale = {**live, "metadata": {**live["metadata"], "resourceVersion": "1"}}

    with pytest.raises(ClusterError) as refusal:
        await lab.cluster.patch(kinds.SECRET, stale, {"stringData": {"password": password}})

    assert password not in str(refusal.value)
