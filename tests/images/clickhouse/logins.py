"""How ClickHouse's users prove who they are: what users.d/*.xml and IDENTIFIED say, and checking
a password against it."""

import hashlib
import hmac
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from sql_text import Words


def user_of(element: ET.Element) -> dict[str, Any]:
    methods = []
    for kind in ("password_sha256_hex", "password_double_sha1_hex", "password"):
        for found in element.iter(kind):
            methods.append({"type": kind, "value": (found.text or "").strip()})
    admin = (element.findtext("access_management") or "0").strip() == "1"
    return {"auth": methods or [{"type": "no_password"}], "admin": admin, "all": True}


def matches(method: dict[str, str], password: str) -> bool:
    raw, value = password.encode(), method.get("value", "")
    match method["type"]:
        case "no_password":
            return True
        case "password" | "plaintext_password":
            given = password
        case "password_double_sha1_hex" | "double_sha1_hash" | "double_sha1_password":
            inner = hashlib.sha1(raw, usedforsecurity=False).digest()
            given = hashlib.sha1(inner, usedforsecurity=False).hexdigest()
        case _:
            salted = raw + method.get("salt", "").encode()
            given = hashlib.sha256(salted).hexdigest()
    return hmac.compare_digest(given.lower().encode(), value.lower().encode()) if value else False


def methods(rest: Words, without: bool) -> Iterator[dict[str, str]]:
    """Behind [NOT] IDENTIFIED: `[WITH type] [BY 'x' [SALT 's']] [, …]`."""
    if without or rest.skip("WITH", "NO_PASSWORD"):
        rest.skip("IDENTIFIED")
        yield {"type": "no_password"}
        return
    while True:
        kind = "sha256_password"
        if rest.skip("WITH") or (rest.rest and rest.rest[0].upper not in ("BY", "")):
            kind = rest.take().lower()
        if not rest.skip("BY"):
            return
        secret = rest.rest.pop(0).text
        method = {"type": kind, "value": secret}
        if rest.skip("SALT"):
            method["salt"] = rest.rest.pop(0).text
        if kind.endswith("_password") and kind != "plaintext_password":
            # Only what a login is compared with is kept.
            digest = hashlib.sha256(secret.encode()).hexdigest()
            method = {"type": "sha256_hash", "value": digest}
        yield method
        if not (rest.rest and rest.rest[0].text == ","):
            return
        rest.take()
