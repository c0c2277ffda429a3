"""PostgreSQL's SCRAM-SHA-256 verifiers: what the server stores instead of a password.

Sending a verifier keeps the password out of the server's log and of pg_stat_activity, and
reading one back tells without a login whether a role's password is the wanted one.
"""

import base64
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from typing import Final

ITERATIONS: Final = 4096  # the server's own default (scram_iterations)
SALT_BYTES: Final = 16

_VERIFIER: Final = re.compile(
    r"SCRAM-SHA-256\$(?P<iterations>\d+):(?P<salt>[A-Za-z0-9+/=]+)\$[^:]+:[^:]+"
)
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def new_verifier(password: str) -> str:
    """A verifier with a salt of its own."""
    return _verifier(password, secrets.token_bytes(SALT_BYTES), ITERATIONS)


def matches(stored: str | None, password: str) -> bool:
    """Whether `stored`, as the server holds it, is a verifier of `password`."""
    parts = _VERIFIER.fullmatch(stored or "")
    if parts is None:
        return False
    salt = base64.b64decode(parts["salt"])
    wanted = _verifier(password, salt, int(parts["iterations"]))
    return hmac.compare_digest(wanted, parts[0])


def _verifier(password: str, salt: bytes, iterations: int) -> str:
    salted = hashlib.pbkdf2_hmac("sha256", _normalised(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _normalised(password: str) -> bytes:
    """SASLprep (RFC 4013) as the server does it: what cannot be prepared is used as it is."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(is_in(character) for is_in in _PROHIBITED for character in prepared):
        return password.encode()
    return prepared.encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
