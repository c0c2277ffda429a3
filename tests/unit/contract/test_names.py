"""Names in the cluster: whatever is built on the longest resource name is still a valid name."""

import re

import pytest

from plan2_contract import names
from plan2_contract.engines import Engine

LONGEST = "a" * names.MAX_NAME_LENGTH
LONGEST_NAMESPACE = "n" * 63
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_LABEL, MAX_HOST = 63, 253
# A StatefulSet's pods carry the label controller-revision-hash: <name>-<up to 10 characters>.
MAX_STATEFUL_SET = MAX_LABEL - len("-") - 10

OF_AN_ENGINE = [
    names.engine_object,
    names.headless_service,
    names.admin_secret,
    names.app_secret,
    names.volume_claim,
]
OF_A_RESOURCE = [names.connection_secret, names.api_token_secret, names.recovery_secret]


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("build", OF_AN_ENGINE, ids=lambda build: build.__name__)
def test_an_engines_objects_have_valid_names(build, engine: Engine) -> None:
    name = build(LONGEST, engine)

    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= MAX_LABEL


@pytest.mark.parametrize("build", OF_A_RESOURCE, ids=lambda build: build.__name__)
def test_a_resources_own_objects_have_valid_names(build) -> None:
    assert DNS_LABEL.fullmatch(build(LONGEST))
    assert len(build(LONGEST)) <= MAX_LABEL


@pytest.mark.parametrize("engine", Engine)
def test_the_controllers_own_labels_fit_behind_a_stateful_set(engine: Engine) -> None:
    assert len(names.engine_object(LONGEST, engine)) <= MAX_STATEFUL_SET


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("build", [names.service_host, names.pod_host])
def test_hosts_are_valid_in_the_longest_namespace(build, engine: Engine) -> None:
    host = build(LONGEST, engine, LONGEST_NAMESPACE)

    assert len(host) <= MAX_HOST
    assert all(DNS_LABEL.fullmatch(label) and len(label) <= MAX_LABEL for label in host.split("."))


def test_the_claim_is_the_one_that_the_stateful_set_makes() -> None:
    pod = f"{names.engine_object('demo', Engine.MONGODB)}-0"

    assert names.volume_claim("demo", Engine.MONGODB) == f"data-{pod}"
    assert names.pod_host("demo", Engine.MONGODB, "ns").startswith(f"{pod}.")


@pytest.mark.parametrize("engine", Engine)
def test_labels_are_valid_and_the_selector_is_among_them(engine: Engine) -> None:
    labels = names.labels(LONGEST, engine)

    assert names.selector(LONGEST, engine).items() <= labels.items()
    assert all(DNS_LABEL.fullmatch(value) and len(value) <= MAX_LABEL for value in labels.values())


def test_no_two_objects_of_a_kind_share_a_name() -> None:
    secrets = [build("demo") for build in OF_A_RESOURCE]
    secrets += [names.admin_secret("demo", engine) for engine in Engine]
    secrets += [names.app_secret("demo", engine) for engine in Engine]
    services = [names.engine_object("demo", engine) for engine in Engine]
    services += [names.headless_service("demo", engine) for engine in Engine]

    assert len(set(secrets)) == len(secrets)
    assert len(set(services)) == len(services)
