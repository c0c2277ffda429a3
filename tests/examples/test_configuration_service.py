"""examples/02-configuration-service: settings with versions, previews and a history."""

from collections.abc import Iterator

import pytest

from fixtures.example_programs import Service, serving
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, eventually


@pytest.fixture(scope="module")
def service(laptop: SidecarProcess) -> Iterator[Service]:
    with serving("02-configuration-service", "server.js", laptop) as running:
        yield running


@pytest.fixture
def user(service: Service, connect: Connect) -> SidecarClient:
    return connect(service.url, **{"X-User": "ada"})


async def test_a_setting_is_read_as_it_was_written(user: SidecarClient, unique: str) -> None:
    path = f"/users/{unique}/settings/theme"
    written = await user.call("PUT", path, json={"value": {"dark": True}})
    read = await user.get(path)

    assert (written.status, written.body["version"]) == (200, 1)
    assert read.body == {"value": {"dark": True}, "version": 1, "degraded": False}
    assert read.headers["Etag"] == '"1"'
    assert (await user.get(f"/users/{unique}/settings/nothing")).status == 404


async def test_of_two_who_change_the_same_version_one_is_told(
    user: SidecarClient, unique: str
) -> None:
    path = f"/users/{unique}/settings/limit"
    await user.call("PUT", path, json={"value": 1})
    seen = {"If-Match": '"1"'}

    first = await user.call("PUT", path, json={"value": 2}, headers=seen)
    second = await user.call("PUT", path, json={"value": 3}, headers=seen)

    assert (first.status, second.status) == (200, 412)
    assert (await user.get(path)).body["value"] == 2


async def test_the_history_has_every_change_with_who_made_it(
    user: SidecarClient, unique: str
) -> None:
    path = f"/users/{unique}/settings/theme"
    await user.call("PUT", path, json={"value": "light"})
    await user.call("PUT", path, json={"value": "dark"})
    imported = {"oldValue": None, "newValue": "green"}
    assert (await user.call("POST", f"{path}/imported-change", json=imported)).status == 202

    items = (await user.get(f"{path}/history")).body["items"]

    changes = [(item["oldValue"], item["newValue"]) for item in items]
    assert ("light", "dark") in changes
    assert (None, "green") in changes
    dark = next(item for item in items if item["newValue"] == "dark")
    assert dark["actor"] == "ada"


async def test_a_preview_is_seen_by_all_and_passes_without_a_trace(
    user: SidecarClient, unique: str
) -> None:
    path = f"/users/{unique}/settings/banner"
    await user.call("PUT", path, json={"value": "old"})
    await user.call("PUT", f"{path}/preview", json={"value": "new"})

    previewed = (await user.get(path)).body
    await user.call("PUT", path, json={"value": "kept"})
    written = (await user.get(path)).body

    assert (previewed["value"], previewed["version"]) == ("new", None)
    assert (written["value"], written["version"]) == ("kept", 2)


async def test_what_is_no_json_is_refused_and_the_service_is_healthy(user: SidecarClient) -> None:
    refused = await user.call("PUT", "/users/u/settings/k", data=b"{")

    async def healthy() -> bool:
        return (await user.get("/healthz")).status == 200

    assert refused.status == 400
    await eventually(healthy)
