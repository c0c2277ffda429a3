"""Who is asking, and what the grants let them do: none, ro or rw, by database and collection."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

from failure import Failure, unauthorised
from store import Json, Session, password_is

LEVELS = {"undefined": -1, "none": 0, "ro": 1, "rw": 2}
TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class Caller:
    """A user that was authenticated; everything is allowed where authentication is off."""

    name: str
    grants: Json
    all_allowed: bool = False

    def level(self, db: str, collection: str = "*") -> int:
        """0 none, 1 ro, 2 rw."""
        if self.all_allowed:
            return 2
        entry = self.grants.get(db) or self.grants.get("*") or {}
        granted = entry.get("collections", {})
        own = granted.get(collection, granted.get("*", "undefined"))
        level = LEVELS[own] if collection != "*" or own != "undefined" else -1
        return level if level >= 0 else LEVELS[entry.get("permission", "none")]

    def database_level(self, db: str) -> int:
        if self.all_allowed:
            return 2
        entry = self.grants.get(db) or self.grants.get("*") or {}
        return max(0, LEVELS[entry.get("permission", "none")])

    def must_enter(self, db: str) -> None:
        if self.database_level(db) < 1:
            raise unauthorised()

    def must_administer(self, db: str = "_system") -> None:
        if self.database_level(db) < 2:
            raise Failure(11)

    def must_read(self, db: str, collection: str) -> None:
        if self.level(db, collection) < 1:
            raise Failure(11, f"read access to collection '{collection}'")

    def must_write(self, db: str, collection: str) -> None:
        level = self.level(db, collection)
        if level < 1:
            raise Failure(11, f"write access to collection '{collection}'")
        if level < 2:
            raise Failure(1004)


def caller(session: Session, header: str, secret: str) -> Caller:
    """The user of an Authorization header; 401 for none or a wrong one."""
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        name, password = _basic(value)
        return login(session, name, password)
    if kind.lower() == "bearer":
        claims = _claims(value.strip(), secret)
        name = str(claims.get("preferred_username", ""))
        user = session.user(name)
        if user and user.get("active", True):
            return Caller(name, user["grants"])
    raise unauthorised()


def login(session: Session, name: str, password: str) -> Caller:
    user = session.user(name)
    if user is None or not user.get("active", True) or not password_is(user["password"], password):
        raise unauthorised()
    return Caller(name, user["grants"])


def token(name: str, secret: str) -> str:
    """A JWT as /_open/auth gives it, valid for an hour."""
    now = int(time.time())
    claims = {
        "preferred_username": name,
        "iss": "arangodb",
        "iat": now,
        "exp": now + TOKEN_SECONDS,
    }
    signed = f"{_encoded({'alg': 'HS256', 'typ': 'JWT'})}.{_encoded(claims)}"
    return f"{signed}.{_signature(signed, secret)}"


def _claims(text: str, secret: str) -> Json:
    signed, _, signature = text.rpartition(".")
    if not hmac.compare_digest(_signature(signed, secret).encode(), signature.encode()):
        raise unauthorised()
    payload = signed.partition(".")[2]
    claims: Json = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if claims.get("exp", 0) < time.time():
        raise unauthorised()
    return claims


def _basic(value: str) -> tuple[str, str]:
    try:
        name, _, password = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise unauthorised() from error
    return name, password


def _encoded(value: Any) -> str:
    raw = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _signature(signed: str, secret: str) -> str:
    digest = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
