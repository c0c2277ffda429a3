"""AdmissionReview in and out: whatever happens, the pod is allowed."""

import base64
import json
import logging
from typing import Any

import pytest

from plan2_operator.injector import admission
from plan2_operator.injector.admission import NotAReview
from plan2_operator.injector.settings import SYSTEM_NAMESPACES, Settings
from plan2_operator.injector.sidecar import Options

SETTINGS = Settings(
    namespace="plan2-system",
    sidecar_image="plan2/sidecar:1",
    excluded_namespaces=SYSTEM_NAMESPACES,
)


def unknown(namespace: str, name: str) -> Options | None:
    return None


def review(pod: Any = None, **request: Any) -> bytes:
    if pod is None:
        pod = {
            "metadata": {"labels": {"plan2.io/inject": "aitrading"}},
            "spec": {"containers": [{"name": "app"}]},
        }
    asked = {
        "uid": "u-1",
        "operation": "CREATE",
        "namespace": "trading",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": pod,
        "dryRun": True,
        **request,
    }
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}
    ).encode()


def response(answer: admission.Answer) -> dict[str, Any]:
    body = json.loads(answer.body)
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert body["response"]["uid"] == "u-1"
    assert body["response"]["allowed"] is True
    result: dict[str, Any] = body["response"]
    return result


def test_a_labelled_pod_is_answered_with_a_json_patch() -> None:
    answer = admission.answer(review(), SETTINGS, unknown)

    said = response(answer)
    assert answer.outcome == "injected"
    assert said["patchType"] == "JSONPatch"
    operations = json.loads(base64.b64decode(said["patch"]))
    assert {operation["op"] for operation in operations} == {"add"}
    assert "warnings" not in said


def test_the_resource_of_the_pods_own_namespace_is_looked_up() -> None:
    asked: list[tuple[str, str]] = []

    def lookup(namespace: str, name: str) -> Options:
        asked.append((namespace, name))
        return Options(image="mirror/sidecar:2")

    said = response(admission.answer(review(), SETTINGS, lookup))

    assert asked == [("trading", "aitrading")]
    assert b"mirror/sidecar:2" in base64.b64decode(said["patch"])


def test_a_skipped_pod_is_allowed_without_a_patch_and_told_why() -> None:
    answer = admission.answer(review(namespace="kube-system"), SETTINGS, unknown)

    said = response(answer)
    assert (answer.outcome, answer.reason) == ("skipped", "excluded_namespace")
    assert "patch" not in said
    assert said["warnings"] == ["plan2: no sidecar: namespace kube-system is never injected"]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"operation": "UPDATE"}, id="an update"),
        pytest.param({"operation": "DELETE", "object": None}, id="a deletion"),
        pytest.param({"subResource": "ephemeralcontainers"}, id="a subresource"),
        pytest.param({"resource": {"resource": "services"}}, id="another kind"),
    ],
)
def test_only_new_pods_are_changed(request_: dict[str, Any]) -> None:
    answer = admission.answer(review(**request_), SETTINGS, unknown)

    assert answer.outcome == "skipped"
    assert "patch" not in response(answer)


def test_a_bug_in_the_injector_never_keeps_a_pod_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(namespace: str, name: str) -> Options | None:
        raise RuntimeError("a bug")

    with caplog.at_level(logging.ERROR):
        answer = admission.answer(review(), SETTINGS, broken)

    said = response(answer)
    assert (answer.outcome, answer.reason) == ("failed", "internal_error")
    assert "patch" not in said
    assert said["warnings"] == ["plan2: the sidecar was not injected, see the injector's log"]
    assert "a bug" in caplog.text


def test_a_pod_of_a_shape_nobody_expects_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    odd = {"metadata": {"labels": {"plan2.io/inject": "x"}}, "spec": {"containers": "none"}}

    answer = admission.answer(review(odd), SETTINGS, unknown)

    assert answer.outcome == "failed"
    assert "patch" not in response(answer)
    assert "admitted unpatched" in caplog.text


def test_a_warning_fits_into_what_the_api_server_shows() -> None:
    pod = {
        "metadata": {
            "labels": {"plan2.io/inject": "aitrading"},
            "annotations": {"plan2.io/v1": "x" * 1000},
        },
        "spec": {"containers": [{"name": "app"}]},
    }

    said = response(admission.answer(review(pod), SETTINGS, unknown))

    assert [len(warning) for warning in said["warnings"]] == [256]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}',
        b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", '
        b'"request": {"uid": "u"}}',
    ],
)
def test_what_is_no_review_cannot_be_answered(body: bytes) -> None:
    with pytest.raises(NotAReview):
        admission.answer(body, SETTINGS, unknown)
