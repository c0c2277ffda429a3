"""What the injector is told by its environment."""

from pathlib import Path

import pytest

from plan2_contract.environment import InvalidVariable
from plan2_operator.injector import settings
from plan2_operator.injector.settings import SYSTEM_NAMESPACES

REQUIRED = {"PLAN2_OPERATOR_NAMESPACE": "plan2-system", "PLAN2_SIDECAR_IMAGE": "plan2/sidecar:1"}


def test_the_namespace_and_the_image_are_enough() -> None:
    told = settings.from_env(REQUIRED)

    assert told.excluded_namespaces == SYSTEM_NAMESPACES | {"plan2-system"}
    assert told.server_names()[0] == "plan2-injector.plan2-system.svc"
    assert told.watch_namespaces == ()


def test_everything_can_be_told() -> None:
    told = settings.from_env(
        {
            **REQUIRED,
            "PLAN2_SIDECAR_IMAGE_PULL_POLICY": "Never",
            "PLAN2_WATCH_NAMESPACES": "a, b,",
            "PLAN2_INJECTOR_EXCLUDED_NAMESPACES": "c",
            "PLAN2_INJECTOR_SERVICE": "other",
            "PLAN2_INJECTOR_EXTRA_NAMES": "127.0.0.1",
            "PLAN2_INJECTOR_CERTIFICATE_DIRECTORY": "/tls",
            "PLAN2_INJECTOR_PORT": "9443",
        }
    )

    assert told.sidecar_pull_policy == "Never"
    assert told.watch_namespaces == ("a", "b")
    assert "c" in told.excluded_namespaces
    assert told.server_names()[0] == "other.plan2-system.svc"
    assert told.server_names()[-1] == "127.0.0.1"
    assert told.certificate_directory == Path("/tls")
    assert told.port == 9443


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"PLAN2_OPERATOR_NAMESPACE": ""}, "PLAN2_OPERATOR_NAMESPACE"),
        ({"PLAN2_SIDECAR_IMAGE": ""}, "PLAN2_SIDECAR_IMAGE"),
        ({"PLAN2_SIDECAR_IMAGE_PULL_POLICY": "Sometimes"}, "PLAN2_SIDECAR_IMAGE_PULL_POLICY"),
        ({"PLAN2_INJECTOR_PORT": "70000"}, "PLAN2_INJECTOR_PORT"),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidVariable, match=named):
        settings.from_env({**REQUIRED, **changes})
