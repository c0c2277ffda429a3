"""What every engine's provisioner is given and what it raises.

A provisioner brings a running engine to what the resource asks for: the database, the application
roles with their passwords, the grants, `bootstrap`. It reads before it writes, so that a second
run changes nothing. When to run it, and what to tell the user, is the caller's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from plan2_contract.engines import Engine
from plan2_operator.engines import access, mongodb, weaviate
from plan2_operator.errors import ProvisionError
from plan2_operator.spec import Bootstrap

CONNECT_SECONDS: Final = 10.0
_SECRETS: Final = (
    access.PASSWORD,
    access.APP_PASSWORD,
    access.RO_PASSWORD,
    weaviate.API_KEY,
    weaviate.APP_API_KEY,
    mongodb.KEY_FILE,
)


class Reason(StrEnum):
    """Why provisioning ended, as it stands in a condition."""

    CREDENTIALS_MISMATCH = "CredentialsMismatch"
    BOOTSTRAP_FAILED = "BootstrapFailed"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    PROVISIONING_FAILED = "ProvisioningFailed"


@dataclass(frozen=True)
class Provision:
    """One engine to bring to its spec. `seconds` is the deadline of the whole."""

    engine: Engine
    host: str
    port: int
    database: str
    admin: Mapping[str, str] = field(repr=False)
    bootstrap: Bootstrap
    seconds: float
    _steps: list[str] = field(default_factory=list, repr=False, compare=False)

    def begin(self, step: str) -> None:
        """Say what is waited for now: the deadline's message ends with it."""
        self._steps.append(step)

    @property
    def connect_seconds(self) -> float:
        """How long the engine may take to accept a connection."""
        return min(self.seconds, CONNECT_SECONDS)

    @property
    def step(self) -> str:
        """What was begun last, empty at first."""
        return self._steps[-1] if self._steps else ""

    def secret(self, key: str) -> str:
        """A value of the admin Secret; raises ProvisionError when the Secret lacks the key."""
        value = self.admin.get(key)
        if not value:
            message = f"the admin Secret of {self.engine} has no value under {key!r}"
            raise ProvisionError(message, reason=Reason.CREDENTIALS_MISMATCH, retry=False)
        return value

    def without_secrets(self, text: str) -> str:
        """`text` with every password of this request struck out, on one line."""
        for key in _SECRETS:
            value = self.admin.get(key)
            if value:
                text = text.replace(value, "***")
        return " ".join(text.split())


class Provisioner(Protocol):
    """A module of this package."""

    async def provision(self, request: Provision) -> None: ...


def refused_login(who: str, detail: str = "") -> ProvisionError:
    """The engine knows another password than the Secret holds."""
    message = f"the login of {who} with the password in the admin Secret was refused"
    return ProvisionError(
        f"{message}: {detail}" if detail else message,
        reason=Reason.CREDENTIALS_MISMATCH,
        retry=False,
    )


def unavailable(error: BaseException | str) -> ProvisionError:
    """The engine did not answer; it may the next time."""
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    message = f"the engine did not answer: {text}"
    return ProvisionError(message, reason=Reason.ENGINE_UNAVAILABLE, retry=True)


def failed(message: str) -> ProvisionError:
    """The engine refused what the operator asked of it."""
    return ProvisionError(message, reason=Reason.PROVISIONING_FAILED, retry=True)


def bad_bootstrap(message: str) -> ProvisionError:
    """The engine refused what the user asked of it."""
    return ProvisionError(message, reason=Reason.BOOTSTRAP_FAILED, retry=False)
