"""Why one engine cannot be brought on, in the words that status and events use."""

from typing import Final

CREDENTIALS_LOST: Final = "CredentialsLost"
CREDENTIALS_INVALID: Final = "CredentialsInvalid"
CREDENTIALS_MISSING: Final = "CredentialsMissing"
BOOTSTRAP_MISSING: Final = "BootstrapMissing"
STORAGE_EXPANSION_REFUSED: Final = "StorageExpansionRefused"
REFUSED: Final = "RefusedByApiServer"
API_UNAVAILABLE: Final = "ApiServerUnavailable"
INTERNAL_ERROR: Final = "InternalError"


class EngineFailure(Exception):
    """One engine cannot go on. `reason` is a CamelCase word.

    `stalled` says that only the user can help; otherwise the next look may find it well.
    """

    def __init__(self, reason: str, message: str, *, stalled: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.stalled = stalled
