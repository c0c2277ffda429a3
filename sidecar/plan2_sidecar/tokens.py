"""The tokens that open `/api`: from PLAN2_API_TOKEN, from a file with one a line, or none.

Every line is valid, which is how a token rotates: the new one is added, clients move over, the
old one goes. A configured file that is missing or empty lets nobody in.
"""

import hmac
import logging
from pathlib import Path

from plan2_sidecar.files import WatchedFile

LOG = logging.getLogger(__name__)
_SCHEME = "bearer "


class Tokens:
    """The set of valid tokens; `poll()` re-reads the file when it changed."""

    def __init__(self, token: str | None, path: Path | None) -> None:
        self._fixed: tuple[bytes, ...] = (token.encode(),) if token else ()
        self._file = WatchedFile(path) if path else None
        # All of them: another object each time they change.
        self.valid: tuple[bytes, ...] = self._fixed
        self._said = ""
        self.poll()

    @property
    def required(self) -> bool:
        """False where no token is configured at all."""
        return bool(self._fixed) or self._file is not None

    def poll(self) -> bool:
        """True when the file brought other tokens."""
        if self._file is None:
            return False
        try:
            content = self._file.changed()
        except OSError as error:
            if str(error) != self._said:
                LOG.warning("%s: %s; the tokens stay as they are", self._file.path, error)
            self._said = str(error)
            return False
        if content is None:
            return False
        lines = tuple(line.strip() for line in content.splitlines() if line.strip())
        self.valid = (*self._fixed, *lines)
        return True

    def admits(self, authorization: str | None) -> bool:
        """Whether the header `Authorization: Bearer …` holds a valid token."""
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        offered = authorization[len(_SCHEME) :].strip().encode("utf-8", "surrogateescape")
        if self._matches(offered):
            return True
        # A token rotated within the last second is looked up before it is refused.
        return self.poll() and self._matches(offered)

    def _matches(self, offered: bytes) -> bool:
        # Every token is compared, so that the time taken says nothing about which one fits.
        found = False
        for token in self.valid:
            found |= hmac.compare_digest(token, offered)
        return found
