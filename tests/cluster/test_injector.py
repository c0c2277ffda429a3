"""The injector's own process behind a real API server, with the rights the chart gives it."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, free_ports
from fixtures.fix_helm import Helm, Kubectl

pytestmark = pytest.mark.cluster

RELEASE = "injected"  # not the chart's tests' release: both write to one API server
SYSTEM = "injected-system"
ACCOUNT = f"{RELEASE}-injector"
NAMESPACE = "shop"
READY_SECONDS = 60


@dataclass
class Replica:
    """One injector on this machine."""

    process: subprocess.Popen[bytes]
    port: int
    health_port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.health_port}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_until_ready(self) -> None:
        wait_until("the injector is ready", lambda: self.get("/readyz")[0] == 200, self.log)

    def certificate(self) -> str:
        """What it serves, as PEM."""
        return ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def wait_until(what: str, condition: Callable[[], Any], log: Path | None = None) -> Any:
    """What the condition gives once it is true; fails after READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"not in {READY_SECONDS} s: {what}\n{log.read_text() if log else ''}")


@pytest.fixture(scope="module")
def kubectl(control_plane_with_controllers: ControlPlane) -> Kubectl:
    """With controllers, because only then the API server mounts accounts' tokens in pods."""
    return Kubectl(control_plane_with_controllers.kubeconfig)


@pytest.fixture(scope="module")
def installed(helm: Helm, kubectl: Kubectl) -> Iterator[int]:
    """The chart's roles and webhook; gives the port that the webhook calls on this machine."""
    (port,) = free_ports(1)
    values = {"fullnameOverride": RELEASE}
    objects = Helm(helm.program, release=RELEASE, namespace=SYSTEM).objects(values)
    wanted = ("CustomResourceDefinition", "ServiceAccount", "MutatingWebhookConfiguration")
    kept = [one for one in objects if one["kind"] in wanted or "Role" in one["kind"]]
    for one in kept:
        if one["kind"] == "MutatingWebhookConfiguration":
            (webhook,) = one["webhooks"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/mutate"}
            # So that the injector itself has to leave the system's namespaces alone.
            del webhook["namespaceSelector"]
    names = (SYSTEM, NAMESPACE)
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names]
    accounts = [account(NAMESPACE), account("kube-system")]
    text = yaml.safe_dump_all([*spaces, *accounts, *kept])
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)
    kubectl.wait_for_definitions()
    yield port
    kubectl("delete", "mutatingwebhookconfiguration", ACCOUNT)


def account(namespace: str) -> dict[str, Any]:
    """The account of pods that name none; not to wait for the controller that makes it."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace},
    }


@pytest.fixture(scope="module")
def start(
    installed: int, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Replica]]:
    """Starts an injector that listens on a port; it is ended with the module."""
    folder = tmp_path_factory.mktemp("injector")
    started: list[Replica] = []
    kubeconfig = kubectl.as_service_account(ACCOUNT, SYSTEM, folder / "kubeconfig")

    def start(port: int) -> Replica:
        (health_port,) = free_ports(1)
        log = folder / f"injector-{len(started)}.log"
        environ = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "NO_PROXY": "127.0.0.1,localhost",
            "PLAN2_OPERATOR_NAMESPACE": SYSTEM,
            "PLAN2_SIDECAR_IMAGE": "plan2/sidecar:1",
            "PLAN2_INJECTOR_SERVICE": ACCOUNT,
            "PLAN2_INJECTOR_WEBHOOK": ACCOUNT,
            "PLAN2_INJECTOR_CA_SECRET": f"{ACCOUNT}-ca",
            "PLAN2_INJECTOR_TLS_SECRET": f"{ACCOUNT}-tls",
            "PLAN2_INJECTOR_EXTRA_NAMES": "127.0.0.1",
            "PLAN2_INJECTOR_HOST": "127.0.0.1",
            "PLAN2_INJECTOR_PORT": str(port),
            "PLAN2_INJECTOR_HEALTH_PORT": str(health_port),
            "PLAN2_INJECTOR_DRAIN_SECONDS": "0",
        }
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "plan2_operator.injector"],
                env=environ,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(Replica(process, port, health_port, log))
        return started[-1]

    yield start
    for replica in started:
        if replica.process.poll() is None:
            replica.stop()


@pytest.fixture(scope="module")
def replica(start: Callable[[int], Replica], installed: int) -> Replica:
    running = start(installed)
    running.wait_until_ready()
    return running


def pod(name: str, *, inject: str | None = "aitrading", **spec: Any) -> dict[str, Any]:
    annotations = spec.pop("annotations", {})
    labels = {"app": "shop"} if inject is None else {"plan2.io/inject": inject}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "shop:1"}], **spec},
    }


def created(
    kubectl: Kubectl, given: dict[str, Any], namespace: str = NAMESPACE
) -> tuple[dict[str, Any], str]:
    """The pod as the API server made it, and the warnings it gave. Nothing is kept."""
    done = kubectl.run(
        "create",
        "--dry-run=server",
        f"--namespace={namespace}",
        "--filename=-",
        "--output=json",
        stdin=json.dumps(given),
    )
    return json.loads(done.stdout), done.stderr


def init_containers(made: dict[str, Any]) -> list[str]:
    return [container["name"] for container in made["spec"].get("initContainers", [])]


def test_a_labelled_pod_is_given_the_sidecar(replica: Replica, kubectl: Kubectl) -> None:
    text = json.dumps(pod("kept"))
    kubectl("create", f"--namespace={NAMESPACE}", "--filename=-", stdin=text)

    made = json.loads(kubectl("get", "pod", "kept", f"--namespace={NAMESPACE}", "--output=json"))

    assert init_containers(made) == ["plan2-sidecar"]
    assert made["metadata"]["annotations"]["plan2.io/injected"]
    (app,) = made["spec"]["containers"]
    assert {"PLAN2_URL", "PLAN2_SOCKET", "PLAN2_API_TOKEN_FILE"} == {
        variable["name"] for variable in app["env"]
    }


def test_the_sidecar_is_given_no_account_token_though_the_app_is(
    replica: Replica, kubectl: Kubectl
) -> None:
    made, _ = created(kubectl, pod("accounts"))

    def account_mounts(container: dict[str, Any]) -> list[str]:
        directory = "/var/run/secrets/kubernetes.io/serviceaccount"
        return [m["name"] for m in container["volumeMounts"] if m["mountPath"] == directory]

    (app,), (own,) = made["spec"]["containers"], made["spec"]["initContainers"]
    assert account_mounts(app)[0].startswith("kube-api-access")
    assert account_mounts(own) == ["plan2-no-account"]


def test_a_pod_without_the_label_is_untouched(replica: Replica, kubectl: Kubectl) -> None:
    made, warnings = created(kubectl, pod("plain", inject=None))

    assert init_containers(made) == []
    assert "env" not in made["spec"]["containers"][0]
    assert warnings == ""


def test_a_pod_of_the_system_is_untouched(replica: Replica, kubectl: Kubectl) -> None:
    made, warnings = created(kubectl, pod("system"), "kube-system")

    assert init_containers(made) == []
    assert "kube-system is never injected" in warnings


def test_a_pod_on_the_host_network_is_untouched(replica: Replica, kubectl: Kubectl) -> None:
    made, warnings = created(kubectl, pod("hosted", hostNetwork=True))

    assert init_containers(made) == []
    assert "host network" in warnings


def test_a_second_admission_changes_nothing(replica: Replica, kubectl: Kubectl) -> None:
    once, _ = created(kubectl, pod("again"))
    again = {**once, "metadata": {**once["metadata"], "name": "again-again"}}
    for server_made in ("uid", "creationTimestamp", "resourceVersion", "managedFields"):
        again["metadata"].pop(server_made, None)

    twice, warnings = created(kubectl, again)

    assert twice["spec"] == once["spec"]
    assert warnings == ""


def test_a_restricted_namespace_admits_it(replica: Replica, kubectl: Kubectl) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": "strict", "labels": labels}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    text = yaml.safe_dump_all([namespace, account("strict")])
    kubectl("apply", "--server-side", "--filename=-", stdin=text)
    context = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    app = {"name": "app", "image": "shop:1", "securityContext": context}

    made, _ = created(kubectl, pod("strict", containers=[app]), "strict")

    assert init_containers(made) == ["plan2-sidecar"]


def test_a_bad_annotation_is_a_warning(replica: Replica, kubectl: Kubectl) -> None:
    annotations = {"plan2.io/sidecar-resources": '{"limits": {"memory": "lots"}}'}

    made, warnings = created(kubectl, pod("lots", annotations=annotations))

    assert made["spec"]["initContainers"][0]["resources"]["limits"]["memory"] == "192Mi"
    assert "plan2.io/sidecar-resources" in warnings


def test_every_wish_of_a_pod_is_one_the_api_server_takes(
    replica: Replica, kubectl: Kubectl
) -> None:
    annotations = {
        "plan2.io/env": "true",
        "plan2.io/v1": "open",
        "plan2.io/port": "3000",
        "plan2.io/sidecar-resources": '{"requests": {"cpu": 0.5}, "limits": {"memory": "1Gi"}}',
    }
    migrate = {"name": "migrate", "image": "shop:1", "env": [{"name": "A", "value": "1"}]}
    given = pod("wishes", annotations=annotations, initContainers=[migrate])

    made, warnings = created(kubectl, given)

    assert warnings == ""
    assert init_containers(made) == ["plan2-sidecar", "migrate"]
    assert made["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] == "500m"
    found = {one["name"] for one in made["spec"]["containers"][0]["env"]}
    assert {"PLAN2_URL", "POSTGRES_PASSWORD", "MONGODB_URL"} <= found


def test_a_pod_with_a_budget_of_its_own_is_not_refused(replica: Replica, kubectl: Kubectl) -> None:
    given = pod("budget")
    given["spec"]["resources"] = {
        "requests": {"cpu": "20m", "memory": "32Mi"},
        "limits": {"cpu": "100m", "memory": "64Mi"},
    }

    made, said = created(kubectl, given)

    assert init_containers(made) == ["plan2-sidecar"], said


def test_what_a_resource_says_of_its_sidecars_holds_within_moments(
    replica: Replica, kubectl: Kubectl
) -> None:
    resource = {
        "apiVersion": "plan2.io/v1alpha1",
        "kind": "Plan2Database",
        "metadata": {"name": "own", "namespace": NAMESPACE},
        "spec": {"sidecar": {"image": "mirror/sidecar:2", "requiredEngines": ["postgresql"]}},
    }
    before, _ = created(kubectl, pod("own", inject="own"))
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(resource))

    def injected() -> dict[str, Any] | None:
        made, _ = created(kubectl, pod("own", inject="own"))
        first: dict[str, Any] = made["spec"]["initContainers"][0]
        return made if first["image"] == "mirror/sidecar:2" else None

    made = wait_until("the resource's image is injected", injected, replica.log)

    assert made["spec"]["initContainers"][0]["readinessProbe"]["httpGet"]["path"] == "/readyz"
    stamps = [one["metadata"]["annotations"]["plan2.io/injected"] for one in (before, made)]
    assert stamps[0] != stamps[1]


def test_a_second_replica_serves_the_same_certificate(
    replica: Replica, start: Callable[[int], Replica]
) -> None:
    second = start(free_ports(1)[0])
    second.wait_until_ready()

    assert second.certificate() == replica.certificate()
    assert second.stop() == 0


def test_it_says_what_it_has_done(replica: Replica, kubectl: Kubectl) -> None:
    created(kubectl, pod("counted"))

    status, text = replica.get("/metrics")

    assert status == 200
    assert 'plan2_injector_admissions_total{outcome="injected",reason=""}' in text
    assert 'plan2_injector_certificate_expiry_timestamp_seconds{certificate="leaf"}' in text
    assert replica.get("/livez") == (200, "ok")


def test_what_is_no_review_is_refused_and_nothing_breaks(
    replica: Replica, kubectl: Kubectl
) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = (
        b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    )

    with (
        socket.create_connection(("127.0.0.1", replica.port), timeout=5) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(request)
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400")
    made, _ = created(kubectl, pod("after"))
    assert init_containers(made) == ["plan2-sidecar"]


def test_with_the_injector_down_a_labelled_pod_is_made_without_a_sidecar(
    replica: Replica, kubectl: Kubectl
) -> None:
    assert replica.stop() == 0

    made, _ = created(kubectl, pod("missed"))

    assert init_containers(made) == []
    assert made["metadata"]["labels"]["plan2.io/inject"] == "aitrading"
