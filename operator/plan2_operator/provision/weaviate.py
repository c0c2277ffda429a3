"""Weaviate over REST: the API keys are accepted and the asked collections exist.

Keys come from the pod's environment and are read at start only, so that a key that is refused
is reported and not repaired. A collection that exists is left as it is.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from plan2_operator.engines.weaviate import API_KEY, APP_API_KEY
from plan2_operator.provision.base import (
    Provision,
    bad_bootstrap,
    failed,
    refused_login,
    unavailable,
)

_POLL_SECONDS: Final = 0.2
_REFUSED: Final = (401, 403)


async def provision(request: Provision) -> None:
    """Wait until it is ready, check the keys, create what is missing; raises ProvisionError."""
    timeout = aiohttp.ClientTimeout(total=request.seconds)
    base = f"http://{request.host}:{request.port}"
    try:
        async with aiohttp.ClientSession(base, timeout=timeout) as http:
            request.begin("Weaviate becoming ready")
            await _ready(http)
            request.begin("collections")
            existing = await _collections(http, request, API_KEY)
            if request.admin.get(APP_API_KEY):
                await _collections(http, request, APP_API_KEY)
            for wanted in map(_definition, request.bootstrap.classes):
                if _name(wanted) not in existing:
                    await _create(http, request, wanted)
                    existing.add(_name(wanted))
    except (aiohttp.ClientError, OSError) as error:
        raise unavailable(error) from error


async def _ready(http: aiohttp.ClientSession) -> None:
    """Return once it is; the caller's deadline bounds the wait."""
    while True:
        async with http.get("/v1/.well-known/ready") as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(_POLL_SECONDS)


async def _collections(http: aiohttp.ClientSession, request: Provision, key: str) -> set[str]:
    """The names of all collections, as the holder of that key sees them."""
    async with http.get("/v1/schema", headers=_authorization(request, key)) as answer:
        if answer.status in _REFUSED:
            detail = "Weaviate reads its keys at start: restart its pod if the Secret has changed"
            raise refused_login(f"the key {key!r}", detail)
        if answer.status != 200:
            raise failed(await _reason(answer))
        schema = await answer.json()
    return {collection["class"] for collection in schema.get("classes") or ()}


async def _create(
    http: aiohttp.ClientSession, request: Provision, wanted: Mapping[str, Any]
) -> None:
    headers = _authorization(request, API_KEY)
    async with http.post("/v1/schema", json=wanted, headers=headers) as answer:
        if answer.status != 200:
            raise bad_bootstrap(f"collection {_name(wanted)!r}: {await _reason(answer)}")


def _definition(collection: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(collection, str):
        return {"class": collection, "vectorizer": "none"}
    return collection


def _name(collection: Mapping[str, Any]) -> str:
    """As Weaviate stores it: with a capital first letter."""
    name = str(collection.get("class", ""))
    return name[:1].upper() + name[1:]


def _authorization(request: Provision, key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {request.secret(key)}"}


async def _reason(answer: aiohttp.ClientResponse) -> str:
    """The engine's own message, or the status where it gave none."""
    try:
        body = await answer.json()
        return "; ".join(error["message"] for error in body["error"])
    except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
        return f"HTTP {answer.status} {answer.reason}"
