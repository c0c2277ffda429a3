"""AdmissionReview in, AdmissionReview out; the pod is allowed whatever happens.

Pure but for the log line of a bug. `app` carries the bytes, `patch` decides.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from plan2_contract import names
from plan2_operator.injector import patch
from plan2_operator.injector.patch import Injection
from plan2_operator.injector.settings import Settings
from plan2_operator.injector.sidecar import Options

logger = logging.getLogger(__name__)

Lookup = Callable[[str, str], Options | None]
# The API server cuts a warning off at 256 characters.
WARNING_LENGTH: Final = 256


class NotAReview(ValueError):
    """The body is no AdmissionReview of version v1, so there is nobody to answer."""


class _Resource(msgspec.Struct, frozen=True):
    resource: str = ""


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    operation: str = ""
    namespace: str = ""
    resource: _Resource = _Resource()
    sub_resource: str = ""
    object: dict[str, Any] | None = None


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: _Request


class _Response(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    uid: str
    allowed: bool
    patch_type: str | None = None
    patch: bytes | None = None  # msgspec writes bytes as base64, as the API server wants them
    warnings: list[str] = []


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    response: _Response
    api_version: str = "admission.k8s.io/v1"
    kind: str = "AdmissionReview"


@dataclass(frozen=True)
class Answer:
    """The response body, and what to count: injected, skipped or failed, and why."""

    body: bytes
    outcome: str
    reason: str = ""


_DECODER: Final = msgspec.json.Decoder(_Review)
_ENCODER: Final = msgspec.json.Encoder()


def answer(body: bytes, settings: Settings, lookup: Lookup) -> Answer:
    """The answer to one review; raises NotAReview."""
    request = _decode(body)
    try:
        return _decide(request, settings, lookup)
    except Exception:  # a bug in here must never keep a pod from starting
        logger.exception("admitted unpatched: %s in %s", request.uid, request.namespace)
        warning = "plan2: the sidecar was not injected, see the injector's log"
        return Answer(_encode(request.uid, warnings=[warning]), "failed", "internal_error")


def _decode(body: bytes) -> _Request:
    try:
        review = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise NotAReview(f"not an AdmissionReview: {error}") from error
    if review.kind != "AdmissionReview" or review.api_version != "admission.k8s.io/v1":
        raise NotAReview(f"{review.api_version} {review.kind} is not an AdmissionReview of v1")
    return review.request


def _decide(request: _Request, settings: Settings, lookup: Lookup) -> Answer:
    pod = request.object
    created = request.operation == "CREATE" and not request.sub_resource
    if not created or request.resource.resource != "pods" or pod is None:
        return Answer(_encode(request.uid), "skipped", "not_a_new_pod")
    options = lookup(request.namespace, _resource_name(pod))
    result = patch.inject(pod, namespace=request.namespace, settings=settings, options=options)
    if isinstance(result, Injection):
        body = _encode(request.uid, result.operations, [f"plan2: {w}" for w in result.warnings])
        return Answer(body, "injected")
    said = [f"plan2: no sidecar: {result.message}"] if result.message else []
    return Answer(_encode(request.uid, warnings=said), "skipped", result.reason)


def _resource_name(pod: Mapping[str, Any]) -> str:
    labels: Mapping[str, str] = (pod.get("metadata") or {}).get("labels") or {}
    return labels.get(names.LABEL_INJECT, "")


def _encode(
    uid: str, operations: list[patch.Operation] | None = None, warnings: list[str] | None = None
) -> bytes:
    response = _Response(
        uid=uid,
        allowed=True,
        patch_type="JSONPatch" if operations else None,
        patch=_ENCODER.encode(operations) if operations else None,
        warnings=[warning[:WARNING_LENGTH] for warning in warnings or []],
    )
    return _ENCODER.encode(_Answer(response=response))
