"""ClickHouse's errors as its HTTP interface gives them: a code, a name, an HTTP status."""

import re
from dataclasses import dataclass

_SHAPE = re.compile(
    r"Code: (\d+)\. DB::Exception: (.*?)(?: \(([A-Z0-9_]+)\))?\s*(?:\(version.*\))?\s*$", re.DOTALL
)
_BAD_REQUEST = frozenset(
    (6, 25, 26, 27, 36, 38, 41, 43, 44, 53, 62, 69, 72, 117, 125, 130, 162, 167, 168, 376, 441, 467)
)
_NOT_FOUND = frozenset((46, 47, 50, 56, 60, 63, 73, 81, 115, 141, 152, 336, 420))
_STATUS = {192: 403, 193: 403, 194: 401, 516: 403, 497: 403, 511: 404, 48: 501, 159: 408, 209: 503}


@dataclass
class Failure(Exception):
    """A refused query. `message` is without the `Code: … DB::Exception:` frame."""

    code: int
    message: str
    name: str

    @property
    def status(self) -> int:
        if self.code in _STATUS:
            return _STATUS[self.code]
        if self.code in _BAD_REQUEST:
            return 400
        return 404 if self.code in _NOT_FOUND else 500

    def text(self, version: str) -> str:
        """The body the server sends."""
        return (
            f"Code: {self.code}. DB::Exception: {self.message}. ({self.name}) "
            f"(version {version} (official build))\n"
        )


def from_engine(error: Exception) -> Failure:
    """The engine's own exception, read from its text."""
    match = _SHAPE.search(str(error))
    if match is None:
        return Failure(1001, str(error) or type(error).__name__, "STD_EXCEPTION")
    code, message, name = match.groups()
    return Failure(int(code), message.rstrip(". "), name or "UNKNOWN_EXCEPTION")
