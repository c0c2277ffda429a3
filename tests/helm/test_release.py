"""A release over its life, by helm itself: installed, upgraded, taken away."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cluster.control_plane import ControlPlane
from fixtures.fix_helm import CHART, Helm, Kubectl
from plan2_operator.injector import certificates

pytestmark = pytest.mark.cluster

WEBHOOK = ("mutatingwebhookconfiguration", "plan2-injector")


@pytest.fixture(scope="module")
def empty() -> Iterator[Kubectl]:
    """An API server of its own: helm adopts nothing that others have made."""
    with ControlPlane() as running:
        yield Kubectl(running.kubeconfig)


@pytest.fixture(scope="module")
def release(helm: Helm, empty: Kubectl) -> Kubectl:
    """The chart, installed with its defaults; no node runs its pods."""
    upgrade(helm, empty)
    return empty


def upgrade(helm: Helm, kubectl: Kubectl, *arguments: str) -> str:
    return run(
        helm, kubectl, "upgrade", "--install", "plan2", str(CHART), "--create-namespace", *arguments
    )


def run(helm: Helm, kubectl: Kubectl, *arguments: str) -> str:
    done = helm.run(
        f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={helm.namespace}", *arguments
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_to_do_next(helm: Helm, release: Kubectl) -> None:
    notes = run(helm, release, "get", "notes", "plan2")

    assert "plan2.io/inject: aitrading" in notes
    assert "kind: Plan2Database" in notes


def test_an_upgrade_leaves_the_webhooks_trust_alone(helm: Helm, release: Kubectl) -> None:
    path = "/webhooks/0/clientConfig/caBundle"
    change = json.dumps([{"op": "add", "path": path, "value": trusted()}])
    release("patch", *WEBHOOK, "--type=json", f"--patch={change}")
    bundle = release("get", *WEBHOOK, "--output=jsonpath={.webhooks[0].clientConfig.caBundle}")

    upgrade(helm, release, "--set=injector.timeoutSeconds=3")

    webhook = json.loads(release("get", *WEBHOOK, "--output=json"))["webhooks"][0]
    assert webhook["timeoutSeconds"] == 3
    assert webhook["clientConfig"]["caBundle"] == bundle


def trusted() -> str:
    """A caBundle that the API server takes."""
    authority = certificates.new_authority(datetime.now(UTC))
    return base64.b64encode(certificates.bundle(authority.trusted)).decode()


def test_databases_outlive_the_release(helm: Helm, release: Kubectl) -> None:
    resource = {
        "apiVersion": "plan2.io/v1alpha1",
        "kind": "Plan2Database",
        "metadata": {"name": "kept", "namespace": "default"},
        "spec": {},
    }
    release.wait_for_definitions()
    release("apply", "--filename=-", stdin=json.dumps(resource))

    run(helm, release, "uninstall", "plan2")

    assert "kept" in release("get", "plan2databases", "--output=name")
    assert release.run("get", *WEBHOOK, check=False).returncode != 0
    upgrade(helm, release)
