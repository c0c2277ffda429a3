"""The server's half of SCRAM-SHA-1 and SCRAM-SHA-256, as MongoDB does it."""

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ITERATIONS = {"SCRAM-SHA-1": 10000, "SCRAM-SHA-256": 15000}
_HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}


class Denied(Exception):
    """Wrong password, unknown user, or a conversation out of order."""


def credentials(user: str, password: str) -> dict[str, dict[str, Any]]:
    """What is kept of a password, for each mechanism."""
    return {mechanism: _keys(mechanism, user, password) for mechanism in ITERATIONS}


def _keys(mechanism: str, user: str, password: str) -> dict[str, Any]:
    name = _HASHES[mechanism]
    if name == "sha1":
        text = hashlib.md5(f"{user}:mongo:{password}".encode(), usedforsecurity=False).hexdigest()
    else:
        text = _prepared(password)
    salt = secrets.token_bytes(16 if name == "sha1" else 28)
    salted = hashlib.pbkdf2_hmac(name, text.encode(), salt, ITERATIONS[mechanism])
    client_key = hmac.digest(salted, b"Client Key", name)
    return {
        "salt": base64.b64encode(salt).decode(),
        "iterations": ITERATIONS[mechanism],
        "stored": hashlib.new(name, client_key).hexdigest(),
        "server": hmac.digest(salted, b"Server Key", name).hex(),
    }


def _prepared(password: str) -> str:
    """SASLprep's mapping and normalisation (RFC 4013)."""
    kept = [
        " " if stringprep.in_table_c12(letter) else letter
        for letter in password
        if not stringprep.in_table_b1(letter)
    ]
    return unicodedata.normalize("NFKC", "".join(kept))


@dataclass
class Conversation:
    """One login under way."""

    mechanism: str
    user: str
    keys: dict[str, Any]
    nonce: str
    first: str
    skip_empty: bool
    proved: bool = False
    done: bool = False

    @classmethod
    def start(
        cls,
        mechanism: str,
        payload: bytes,
        skip_empty: bool,
        find: Callable[[str], dict[str, Any] | None],
    ) -> tuple["Conversation", bytes]:
        """`find` gives a user's keys for the mechanism; the challenge comes back."""
        try:
            bare = payload.decode().split(",", 2)[2]
            fields = dict(part.split("=", 1) for part in bare.split(","))
        except (UnicodeDecodeError, ValueError, IndexError) as error:
            raise Denied("malformed client-first message") from error
        user = fields.get("n", "").replace("=2C", ",").replace("=3D", "=")
        keys = find(user)
        if keys is None:
            raise Denied(f"no user {user}")
        nonce = fields.get("r", "") + base64.b64encode(secrets.token_bytes(18)).decode()
        challenge = f"r={nonce},s={keys['salt']},i={keys['iterations']}"
        talk = cls(mechanism, user, keys, nonce, f"{bare},{challenge}", skip_empty)
        return talk, challenge.encode()

    def step(self, payload: bytes) -> bytes:
        """The next answer; `done` tells whether it was the last."""
        if self.proved:
            self.done = True
            return b""
        name = _HASHES[self.mechanism]
        without_proof, _, proof = payload.decode().rpartition(",p=")
        fields = dict(part.split("=", 1) for part in without_proof.split(",") if "=" in part)
        signed = f"{self.first},{without_proof}".encode()
        stored = bytes.fromhex(self.keys["stored"])
        signature = hmac.digest(stored, signed, name)
        given = base64.b64decode(proof)
        client_key = bytes(a ^ b for a, b in zip(signature, given, strict=False))
        right = hmac.compare_digest(hashlib.new(name, client_key).digest(), stored)
        if not right or fields.get("r") != self.nonce:
            raise Denied("storedKey mismatch")
        self.proved = True
        self.done = self.skip_empty
        verifier = hmac.digest(bytes.fromhex(self.keys["server"]), signed, name)
        return b"v=" + base64.b64encode(verifier)
