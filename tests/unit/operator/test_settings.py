"""The operator's environment: every variable is read, a bad one is refused by name."""

import pytest

from plan2_contract.engines import Engine
from plan2_operator import catalog
from plan2_operator.settings import InvalidSetting, Settings


def test_an_empty_environment_watches_everything_with_the_built_in_images() -> None:
    settings = Settings.from_environ({})

    assert settings.watch_namespaces == ()
    assert settings.catalog == catalog.BUILT_IN


def test_namespaces_are_a_list_without_blanks_and_doubles() -> None:
    settings = Settings.from_environ({"PLAN2_WATCH_NAMESPACES": " b, a ,,b"})

    assert settings.watch_namespaces == ("a", "b")


def test_images_and_pull_policy_come_from_the_environment() -> None:
    settings = Settings.from_environ(
        {
            "PLAN2_IMAGE_POSTGRESQL": "localhost/postgresql:dev",
            "PLAN2_IMAGE_PULL_POLICY": "Never",
            "PLAN2_SIDECAR_IMAGE": "localhost/sidecar:dev",
            "PLAN2_SIDECAR_IMAGE_PULL_POLICY": "Never",
            "PLAN2_OPERATOR_NAMESPACE": "here",
        }
    )

    assert settings.catalog.image(Engine.POSTGRESQL) == "localhost/postgresql:dev"
    assert settings.catalog.image(Engine.MONGODB) == catalog.BUILT_IN.image(Engine.MONGODB)
    assert settings.catalog.image_pull_policy == "Never"
    assert settings.catalog.sidecar_image == "localhost/sidecar:dev"
    assert settings.catalog.operator_namespace == settings.operator_namespace == "here"
    assert settings.sidecar_pull_policy == "Never"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PLAN2_HEALTH_PORT", "70000"),
        ("PLAN2_RESYNC_SECONDS", "soon"),
        ("PLAN2_IMAGE_PULL_POLICY", "Sometimes"),
    ],
)
def test_a_bad_value_is_refused_and_the_variable_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=name):
        Settings.from_environ({name: value})


def test_the_namespaces_that_the_injector_leaves_alone_are_known_here_too() -> None:
    settings = Settings.from_environ({"PLAN2_INJECTOR_EXCLUDED_NAMESPACES": "secret-place"})

    assert settings.excluded_namespaces == ("secret-place",)
