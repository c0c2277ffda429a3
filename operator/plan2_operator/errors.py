"""What can go wrong in the operator, grouped by what can be done about it.

    OperatorError
    ├── InvalidSpec      only the user can fix it: `Stalled`, with the field named
    └── ProvisionError   an engine refused a role, a database or a bootstrap statement;
                         `retry` says whether waiting can help

Errors of the Kubernetes API belong to `cluster`.
"""


class OperatorError(Exception):
    """Anything the operator raises on purpose."""


class InvalidSpec(OperatorError, ValueError):
    """A spec that cannot be carried out. `field` is its path, `reason` a CamelCase word."""

    def __init__(self, field: str, message: str, *, reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.reason = reason


class ProvisionError(OperatorError):
    """An engine did not take what the operator wanted of it; `reason` is a CamelCase word.

    The message can be shown: no password is in it.
    """

    def __init__(self, message: str, *, retry: bool, reason: str = "ProvisioningFailed") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry = retry
