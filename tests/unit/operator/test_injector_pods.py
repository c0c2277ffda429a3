"""Pods with habits of their own: what the injector makes of them, and that none is refused."""

import json

import pytest

from fixtures.pods import applied, inject, pod, sidecar_of, variables
from plan2_contract import names
from plan2_operator.injector import sidecar
from plan2_operator.injector.patch import Injection, Skip, Skipped


def test_the_addresses_come_before_the_variables_that_are_built_of_them() -> None:
    own = {"name": "DSN", "value": "$(POSTGRES_HOST):$(POSTGRES_PORT)"}
    given = pod(
        annotations={names.ANNOTATION_ENV: "true"},
        containers=[{"name": "app", "image": "shop:1", "env": [own]}],
    )

    listed = [one["name"] for one in applied(given)["spec"]["containers"][0]["env"]]

    # Kubernetes expands $(NAME) of variables that stand before, and leaves others as text.
    assert listed[0] == "PLAN2_URL"
    assert listed[-1] == "DSN"


@pytest.mark.parametrize("text", ["000742099", "0" * 400 + "1", "99999999"])
def test_a_port_beyond_the_last_one_is_no_port_however_it_is_written(text: str) -> None:
    injection = inject(pod(annotations={names.ANNOTATION_PORT: text}))

    assert isinstance(injection, Injection)
    assert "is no port" in injection.warnings[0]
    result = applied(pod(annotations={names.ANNOTATION_PORT: text}))
    assert variables(sidecar_of(result))["PLAN2_PORT"] == "7420"


def test_a_wish_for_the_classic_environment_that_cannot_be_read_is_told() -> None:
    injection = inject(pod(annotations={names.ANNOTATION_ENV: "yes"}))

    assert isinstance(injection, Injection)
    assert injection.warnings == (
        "plan2.io/env: 'yes' is neither true nor false; no variable is added",
    )


def test_a_pod_with_a_budget_of_its_own_is_not_asked_for_more() -> None:
    # The API server refuses a pod whose containers add up to more than the pod itself may have.
    budget = {"requests": {"cpu": "20m"}, "limits": {"memory": "128Mi"}}

    result = sidecar_of(applied(pod(resources=budget)))

    assert result["resources"] == {"requests": {}, "limits": {}}


def test_a_pod_with_a_budget_still_gets_what_its_annotation_asks_for() -> None:
    text = json.dumps({"limits": {"memory": "96Mi"}})
    given = pod(
        resources={"limits": {"memory": "1Gi"}},
        annotations={names.ANNOTATION_SIDECAR_RESOURCES: text},
    )

    assert sidecar_of(applied(given))["resources"]["limits"] == {"memory": "96Mi"}


def test_a_pod_that_asks_for_a_windows_node_is_left_alone() -> None:
    skipped = inject(pod(nodeSelector={"kubernetes.io/os": "windows"}))

    assert isinstance(skipped, Skipped)
    assert skipped.reason is Skip.WINDOWS


def test_an_image_with_blanks_around_it_never_has_a_pod_refused() -> None:
    options = sidecar.options({"spec": {"sidecar": {"image": " mirror/sidecar:2\n"}}})

    assert sidecar_of(applied(pod(), options=options))["image"] == "mirror/sidecar:2"
    assert sidecar.options({"spec": {"sidecar": {"image": "  "}}}).image is None
