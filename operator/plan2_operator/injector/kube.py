"""The five calls the injector makes to the API server, as plain JSON.

Over `kubernetes.aio`'s client for its configuration, credentials and TLS, without its typed
API classes: importing those of the core group alone costs 100 MB.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

Json = dict[str, Any]

TIMEOUT_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 5.0
JSON_PATCH: Final = "application/json-patch+json"


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class NoCluster(Exception):
    """Neither a pod's account nor a kubeconfig says where the API server is."""


class Kube:
    """One API server; `connect` finds it."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """One object or list; raises ApiError."""
        return await self._json("GET", path, query=query)

    async def create(self, path: str, body: Json) -> Json:
        """A new object; raises ApiError 409 when there is one."""
        return await self._json("POST", path, body=body)

    async def replace(self, path: str, body: Json) -> Json:
        """The object at the resourceVersion in `body`; raises ApiError 409 when it moved on."""
        return await self._json("PUT", path, body=body)

    async def patch(self, path: str, operations: list[Json]) -> Json:
        """A JSON Patch; raises ApiError."""
        return await self._json("PATCH", path, body=operations, content_type=JSON_PATCH)

    async def watch(
        self, path: str, query: Mapping[str, str], *, timeout_seconds: float
    ) -> AsyncIterator[Json]:
        """The events of a watch until the server ends it; raises ApiError, also in the stream."""
        response = await self._request("GET", path, query=query, timeout=timeout_seconds)
        try:
            await _raise_for_status(response)
            # Not by readline: that refuses objects longer than its buffer.
            rest = b""
            async for chunk in response.response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _event(line)
        finally:
            response.response.close()

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Json:
        response = await self._request(
            method, path, query=query, body=body, content_type=content_type
        )
        await _raise_for_status(response)
        value: Json = json.loads(await response.read())
        return value

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        arguments = await self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        return await self._client.call_api(*arguments, _request_timeout=limit)

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]  # the client has no types


async def connect() -> Kube:
    """The API server of the pod this runs in, else of the kubeconfig; raises NoCluster."""
    configuration = Configuration()
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # has no types
    except config.ConfigException:
        try:
            await config.load_kube_config(  # type: ignore[no-untyped-call]  # has no types
                client_configuration=configuration, persist_config=False
            )
        except config.ConfigException as error:
            raise NoCluster(f"no cluster is configured: {error}") from error
    return Kube(ApiClient(configuration))


async def _raise_for_status(response: Any) -> None:
    if response.status < 400:
        return
    text = (await response.read()).decode(errors="replace")
    try:
        message = json.loads(text).get("message", text)
    except (ValueError, AttributeError):
        message = text
    raise ApiError(response.status, message)


def _event(line: bytes) -> Json:
    event: Json = json.loads(line)
    if event.get("type") == "ERROR":
        status = event.get("object", {})
        raise ApiError(status.get("code", 500), status.get("message", "the watch failed"))
    return event
