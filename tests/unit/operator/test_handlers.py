"""The handlers: only low-level events, narrow watches, and nothing that kopf would write."""

import kopf
import pytest

from plan2_contract import names
from plan2_operator import handlers, kinds
from plan2_operator.settings import Settings
from plan2_operator.work_queue import Key


@pytest.fixture
def enqueued() -> list[Key]:
    return []


@pytest.fixture
def registry(enqueued: list[Key]) -> kopf.OperatorRegistry:
    made = kopf.OperatorRegistry()
    handlers.register(made, lambda _: None, enqueued.append)
    return made


def test_no_handler_makes_kopf_write_to_an_object(registry: kopf.OperatorRegistry) -> None:
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    assert not registry._webhooks.get_all_handlers()


def test_every_owned_kind_is_watched_by_our_label_alone(registry: kopf.OperatorRegistry) -> None:
    watched = {
        (handler.selector.group, handler.selector.version, handler.selector.any_name)
        for handler in registry._watching.get_all_handlers()
        if handler.selector
    }
    selectors = handlers.kopf_settings(Settings()).watching.label_selectors

    for kind in kinds.OWNED:
        assert (kind.group, kind.version, kind.plural) in watched
        assert selectors[kind.group, kind.version, kind.plural] == handlers.OWNED_SELECTOR
    assert (names.GROUP, names.API_VERSION, names.PLURAL) in watched


def test_secrets_and_volumes_are_never_watched(registry: kopf.OperatorRegistry) -> None:
    watched = {
        handler.selector.any_name
        for handler in registry._watching.get_all_handlers()
        if handler.selector
    }

    assert watched.isdisjoint({"secrets", "persistentvolumeclaims"})


async def test_an_event_of_an_owned_object_wakes_the_resource_it_belongs_to(
    registry: kopf.OperatorRegistry, enqueued: list[Key]
) -> None:
    [handler] = [
        each for each in registry._watching.get_all_handlers() if each.id == "owned-services"
    ]
    labels = {names.LABEL_INSTANCE: "prices"}

    await handler.fn(namespace="trading", name="prices-redis", labels=labels)  # type: ignore[call-arg]  # kopf passes what is asked for

    assert enqueued == [Key("trading", "prices")]


def test_kopf_posts_no_events_and_watches_no_namespaces() -> None:
    settings = handlers.kopf_settings(Settings())

    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone


def test_kopf_copies_no_object_to_find_out_what_changed() -> None:
    storage = handlers.kopf_settings(Settings()).persistence.diffbase_storage
    body = kopf.Body({"metadata": {"name": "prices"}, "spec": {"replicas": 1}})

    assert storage.fetch(body=body) is None
    assert storage.build(body=body) == {}
