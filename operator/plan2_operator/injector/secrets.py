"""Where `keeper` keeps certificates: two Secrets of the release, and the webhook's caBundle.

Read and written by name only. `Files` is the other way: certificates that somebody else, such
as cert-manager, makes and mounts.
"""

import base64
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plan2_contract import names
from plan2_operator.injector import certificates
from plan2_operator.injector.keeper import NotRegistered, Stored
from plan2_operator.injector.kube import ApiError, Kube

logger = logging.getLogger(__name__)


class SecretStore:
    """A `keeper.Store` in one namespace, for one MutatingWebhookConfiguration."""

    def __init__(self, kube: Kube, *, namespace: str, webhook_configuration: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._webhook = (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"
            f"{webhook_configuration}"
        )

    async def read(self, name: str) -> Stored | None:
        try:
            secret = await self._kube.get(f"{self._secrets}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        return Stored(data, secret["metadata"]["resourceVersion"])

    async def create(self, name: str, data: Mapping[str, bytes]) -> bool:
        return await _unless_conflict(self._kube.create, self._secrets, self._body(name, data))

    async def replace(self, name: str, data: Mapping[str, bytes], version: str) -> bool:
        body = self._body(name, data)
        body["metadata"]["resourceVersion"] = version
        return await _unless_conflict(self._kube.replace, f"{self._secrets}/{name}", body)

    async def bundle(self) -> bytes:
        webhooks = await self._webhooks()
        bundles = {webhook["clientConfig"].get("caBundle", "") for webhook in webhooks}
        # One that differs is as good as none: all are written again.
        return base64.b64decode(bundles.pop()) if len(bundles) == 1 else b""

    async def set_bundle(self, bundle: bytes) -> None:
        text = base64.b64encode(bundle).decode()
        operations = []
        for index, webhook in enumerate(await self._webhooks()):
            path = f"/webhooks/{index}"
            operations += [
                {"op": "test", "path": f"{path}/name", "value": webhook["name"]},
                {"op": "add", "path": f"{path}/clientConfig/caBundle", "value": text},
            ]
        await self._kube.patch(self._webhook, operations)
        logger.info("the webhook's caBundle was written")

    async def _webhooks(self) -> list[dict[str, Any]]:
        try:
            configuration = await self._kube.get(self._webhook)
        except ApiError as error:
            if error.status == 404:
                raise NotRegistered(self._webhook.rpartition("/")[2]) from error
            raise
        webhooks: list[dict[str, Any]] = configuration.get("webhooks") or []
        if not webhooks:
            raise NotRegistered(self._webhook.rpartition("/")[2])
        return webhooks

    def _body(self, name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {
                    names.LABEL_NAME: "plan2-injector",
                    names.LABEL_MANAGED_BY: "plan2-injector",
                    names.LABEL_PART_OF: names.PART_OF,
                },
            },
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }


class Files:
    """Certificates in a mounted folder, loaded again whenever they change."""

    def __init__(self, directory: Path, load: Callable[[Path, Path], None]) -> None:
        self._certificate = directory / certificates.CERTIFICATE
        self._key = directory / certificates.KEY
        self._load = load
        self._seen: tuple[bytes, bytes] | None = None
        self.trusted = False

    async def tick(self) -> None:
        """Load the pair if it is another one; raises OSError while there is none."""
        pair = self._certificate.read_bytes(), self._key.read_bytes()
        if pair != self._seen:
            self._load(self._certificate, self._key)
            self._seen = pair
            logger.info("serving the certificate in %s", self._certificate)
        self.trusted = True


async def _unless_conflict(
    write: Callable[[str, dict[str, Any]], Any], path: str, body: dict[str, Any]
) -> bool:
    try:
        await write(path, body)
    except ApiError as error:
        if error.status == 409:
            return False
        raise
    return True
