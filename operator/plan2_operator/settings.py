"""What the operator is told by its environment, read once at start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from plan2_contract.engines import Engine
from plan2_operator import catalog
from plan2_operator.catalog import Catalog

WATCH_NAMESPACES: Final = "PLAN2_WATCH_NAMESPACES"
OPERATOR_NAMESPACE: Final = "PLAN2_OPERATOR_NAMESPACE"
HEALTH_HOST: Final = "PLAN2_HEALTH_HOST"
HEALTH_PORT: Final = "PLAN2_HEALTH_PORT"
RESYNC_SECONDS: Final = "PLAN2_RESYNC_SECONDS"
IMAGE_PREFIX: Final = "PLAN2_IMAGE_"
IMAGE_PULL_POLICY: Final = "PLAN2_IMAGE_PULL_POLICY"
EXCLUDED_NAMESPACES: Final = "PLAN2_INJECTOR_EXCLUDED_NAMESPACES"
SIDECAR_IMAGE: Final = "PLAN2_SIDECAR_IMAGE"
SIDECAR_PULL_POLICY: Final = "PLAN2_SIDECAR_IMAGE_PULL_POLICY"
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")


class InvalidSetting(ValueError):
    """A variable whose value cannot be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """`watch_namespaces` empty means all; `excluded_namespaces` are never injected, so that no
    sidecar is missed in them. `resync_seconds` is how often Secrets are looked at.

    The promise is 60; the rest is for the reconcile itself. `poll_seconds` is the same while an
    engine is being provisioned, `waiting_seconds` while one is not ready for another reason,
    which the watches tell of; `failed_poll_seconds` while one has failed. `stuck_seconds` is how
    long a reconcile may take before the operator is restarted.
    """

    watch_namespaces: tuple[str, ...] = ()
    excluded_namespaces: tuple[str, ...] = ()
    operator_namespace: str = catalog.BUILT_IN.operator_namespace
    catalog: Catalog = catalog.BUILT_IN
    sidecar_pull_policy: str = "IfNotPresent"
    health_host: str = "0.0.0.0"
    health_port: int = 8080
    resync_seconds: float = 45.0
    poll_seconds: float = 2.0
    waiting_seconds: float = 15.0
    failed_poll_seconds: float = 10.0
    liveness_seconds: float = 120.0
    stuck_seconds: float = 600.0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Raises InvalidSetting."""
        namespace = environ.get(OPERATOR_NAMESPACE) or cls.operator_namespace
        return cls(
            watch_namespaces=_words(environ.get(WATCH_NAMESPACES, "")),
            excluded_namespaces=_words(environ.get(EXCLUDED_NAMESPACES, "")),
            operator_namespace=namespace,
            catalog=_catalog(environ, namespace),
            sidecar_pull_policy=_pull_policy(environ, SIDECAR_PULL_POLICY)
            or cls.sidecar_pull_policy,
            health_host=environ.get(HEALTH_HOST) or cls.health_host,
            health_port=int(_number(environ, HEALTH_PORT, cls.health_port, 0, 65535)),
            resync_seconds=_number(environ, RESYNC_SECONDS, cls.resync_seconds, 1, 3600),
        )


def _catalog(environ: Mapping[str, str], namespace: str) -> Catalog:
    images = {engine: environ.get(f"{IMAGE_PREFIX}{engine.upper()}", "") for engine in Engine}
    return Catalog(
        operator_namespace=namespace,
        images={engine: image for engine, image in images.items() if image},
        image_pull_policy=_pull_policy(environ, IMAGE_PULL_POLICY),
        sidecar_image=environ.get(SIDECAR_IMAGE) or catalog.BUILT_IN.sidecar_image,
    )


def _pull_policy(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name) or None
    if value is not None and value not in PULL_POLICIES:
        raise InvalidSetting(f"{name}={value!r} is none of {', '.join(PULL_POLICIES)}")
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({word.strip() for word in text.split(",") if word.strip()}))


def _number(
    environ: Mapping[str, str], name: str, default: float, low: float, high: float
) -> float:
    text = environ.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        raise InvalidSetting(f"{name}={text!r} is not a number") from None
    if not low <= number <= high:
        raise InvalidSetting(f"{name}={text} is not between {low} and {high}")
    return number
