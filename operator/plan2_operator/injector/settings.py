"""What the injector is told at its start, all of it by environment variables.

The chart sets them; nothing here is read again while the program runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plan2_contract import environment
from plan2_contract.environment import InvalidVariable

SYSTEM_NAMESPACES: Final = frozenset(
    {"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}
)
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PULL_POLICIES: Final = frozenset({"Always", "IfNotPresent", "Never"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`watch_namespaces` empty: all; `certificate_directory` set: someone else makes the files."""

    namespace: str
    sidecar_image: str
    sidecar_pull_policy: str = "IfNotPresent"
    watch_namespaces: tuple[str, ...] = ()
    excluded_namespaces: frozenset[str] = SYSTEM_NAMESPACES
    service: str = "plan2-injector"
    webhook_configuration: str = "plan2-injector"
    ca_secret: str = "plan2-injector-ca"
    tls_secret: str = "plan2-injector-tls"
    certificate_directory: Path | None = None
    extra_names: tuple[str, ...] = ()
    host: str = "0.0.0.0"
    port: int = 8443
    health_port: int = 8080
    drain_seconds: int = 5
    log_level: str = "INFO"

    def server_names(self) -> tuple[str, ...]:
        """The names the API server may call the webhook by."""
        name = f"{self.service}.{self.namespace}"
        service = (f"{name}.svc", f"{name}.svc.cluster.local", name)
        return (*service, *self.extra_names)


def from_env(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; raises InvalidVariable, which names the variable."""
    namespace = _required(environ, "PLAN2_OPERATOR_NAMESPACE")
    directory = environ.get("PLAN2_INJECTOR_CERTIFICATE_DIRECTORY")
    excluded = _names(environ, "PLAN2_INJECTOR_EXCLUDED_NAMESPACES")
    return Settings(
        namespace=namespace,
        sidecar_image=_required(environ, "PLAN2_SIDECAR_IMAGE"),
        sidecar_pull_policy=_pull_policy(environ),
        watch_namespaces=_names(environ, "PLAN2_WATCH_NAMESPACES"),
        excluded_namespaces=SYSTEM_NAMESPACES | {namespace, *excluded},
        service=environ.get("PLAN2_INJECTOR_SERVICE") or Settings.service,
        webhook_configuration=environ.get("PLAN2_INJECTOR_WEBHOOK")
        or Settings.webhook_configuration,
        ca_secret=environ.get("PLAN2_INJECTOR_CA_SECRET") or Settings.ca_secret,
        tls_secret=environ.get("PLAN2_INJECTOR_TLS_SECRET") or Settings.tls_secret,
        certificate_directory=Path(directory) if directory else None,
        extra_names=_names(environ, "PLAN2_INJECTOR_EXTRA_NAMES"),
        host=environ.get("PLAN2_INJECTOR_HOST") or Settings.host,
        port=_port(environ, "PLAN2_INJECTOR_PORT", Settings.port),
        health_port=_port(environ, "PLAN2_INJECTOR_HEALTH_PORT", Settings.health_port),
        drain_seconds=environment.integer(
            environ, "PLAN2_INJECTOR_DRAIN_SECONDS", Settings.drain_seconds, low=0, high=60
        ),
        log_level=_log_level(environ),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise InvalidVariable(f"{name} is not set")
    return value


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in environ.get(name, "").split(",") if part.strip())


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    return environment.integer(environ, name, default, low=1, high=65535)


def _pull_policy(environ: Mapping[str, str]) -> str:
    name = "PLAN2_SIDECAR_IMAGE_PULL_POLICY"
    value = environ.get(name) or Settings.sidecar_pull_policy
    if value not in PULL_POLICIES:
        raise InvalidVariable(f"{name}={value!r} is none of {', '.join(sorted(PULL_POLICIES))}")
    return value


def _log_level(environ: Mapping[str, str]) -> str:
    name = "PLAN2_LOG_LEVEL"
    value = environ.get(name) or Settings.log_level
    if value.upper() not in LOG_LEVELS:
        raise InvalidVariable(f"{name}={value!r} is none of {', '.join(LOG_LEVELS)}")
    return value.upper()
