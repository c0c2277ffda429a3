"""The steps of the main job, shared by `make demo` and the end-to-end tests.

Each is what a user would type: kubectl, helm, a look at status. The cluster itself is
`tests/cluster`, the images are `tests/images`; nothing is built here.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cluster import kinds

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "plan2"
EXAMPLE = ROOT / "examples" / "01-trading-platform"
OPERATOR_NAMESPACE = "plan2-system"
RELEASE = "plan2"
ENGINES = ("postgresql", "dragonflydb", "clickhouse", "weaviate", "arangodb", "mongodb")
SAMPLE_IMAGE = "localhost/plan2-test/sample:dev"

T = TypeVar("T")


class StepFailed(RuntimeError):
    """A command of a step ended with an error; the message is what it printed."""


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def run(*command: str, stdin: str | None = None, timeout: float = 300) -> str:
    """The command's standard output; raises StepFailed with what it printed."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        shown = " ".join(command[:6])
        raise StepFailed(f"{shown} … exited {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def python(script: str, *arguments: str) -> list[str]:
    """The command line of one of the project's own scripts."""
    return [sys.executable, str(ROOT / script), *arguments]


def program(name: str, tool: str) -> str:
    """kubectl or helm: the one on PATH, on the node kind the one the project builds."""
    found = shutil.which(name)
    if found and cluster_kind() != "node":
        return found
    directory = Path(run(*python("tests/tools/build.py", tool), timeout=3600).split()[-1])
    return str(directory / name if directory.is_dir() else directory)


@dataclass(frozen=True)
class Kube:
    """kubectl and helm against one kubeconfig."""

    kubeconfig: Path
    kubectl_program: str = field(default_factory=lambda: program("kubectl", "kubernetes"))
    helm_program: str = field(default_factory=lambda: program("helm", "helm"))

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 300) -> str:
        return run(
            self.kubectl_program,
            f"--kubeconfig={self.kubeconfig}",
            *arguments,
            stdin=stdin,
            timeout=timeout,
        )

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        return run(
            self.helm_program, f"--kubeconfig={self.kubeconfig}", *arguments, timeout=timeout
        )

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def find(self, *arguments: str) -> dict[str, Any] | None:
        """`kubectl get`, or None where there is no such object."""
        text = self.kubectl("get", *arguments, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def apply(self, manifest: Mapping[str, Any] | list[Any], *arguments: str) -> str:
        items = manifest if isinstance(manifest, list) else [manifest]
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return self.kubectl("apply", "-f", "-", *arguments, stdin=document)

    def namespace(self, name: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def stand_in_values() -> dict[str, str]:
    """The chart values that put the test images in the official ones' place."""
    tests = {f"images.{name}": f"localhost/plan2-test/{name}:dev" for name in (*ENGINES, "redis")}
    return product_values() | tests


def product_values() -> dict[str, str]:
    """The chart values for the images built from this checkout.

    Their tag never changes, so an annotation with what was built rolls the pods.
    """
    from images import build

    with build.builder() as builder:
        built = [builder.image(name).blobs[0].digest[-12:] for name in ("operator", "sidecar")]
    stamp = "-".join(built)
    return {
        "operator.podAnnotations.built": stamp,
        "injector.podAnnotations.built": stamp,
        "operator.image.repository": "localhost/plan2/operator",
        "operator.image.tag": "dev",
        "operator.image.pullPolicy": "IfNotPresent",
        "sidecar.image.repository": "localhost/plan2/sidecar",
        "sidecar.image.tag": "dev",
        "sidecar.image.pullPolicy": "IfNotPresent",
    }


def install(kube: Kube, values: Mapping[str, str]) -> None:
    """The chart, installed or upgraded, its Deployments rolled out."""
    settings = [f"--set={key}={value}" for key, value in values.items()]
    kube.helm(
        "upgrade",
        "--install",
        RELEASE,
        str(CHART),
        f"--namespace={OPERATOR_NAMESPACE}",
        "--create-namespace",
        "--wait",
        "--timeout=5m",
        *settings,
        timeout=330,
    )


def status(kube: Kube, namespace: str, name: str) -> dict[str, Any]:
    """The resource's status, empty before the operator wrote one."""
    found = kube.find("plan2database", name, f"--namespace={namespace}")
    return (found or {}).get("status", {})


def condition(of: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a status, empty where there is none."""
    return next((c for c in of.get("conditions", []) if c["type"] == kind), {})


def wait_until(what: str, probe: Callable[[], T], *, seconds: float, every: float = 1.0) -> T:
    """The first truthy answer of `probe`; raises StepFailed that says what was last seen."""
    give_up = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > give_up:
            raise StepFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def progress(kube: Kube, namespace: str, name: str, seconds: float) -> dict[str, Any]:
    """Says each engine's phase as it changes, until Ready; the last status either way."""
    started = time.monotonic()
    said: dict[str, str] = {}
    while True:
        seen = status(kube, namespace, name)
        for engine, line in _engine_lines(seen):
            if said.get(engine) != line:
                said[engine] = line
                say(f"  {time.monotonic() - started:6.1f} s  {engine:<12} {line}")
        if condition(seen, "Ready").get("status") == "True":
            return seen
        if time.monotonic() - started > seconds:
            return seen
        time.sleep(1)


def _engine_lines(seen: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for engine, block in seen.get("engines", {}).items():
        if block.get("phase") != "Disabled":
            yield engine, f"{block.get('phase', ''):<13} {block.get('message', '')}".rstrip()


def example(sample_image: str) -> list[dict[str, Any]]:
    """The manifests of the first example, its service on an image that is at hand."""
    import yaml

    script = (EXAMPLE / "trading_service.py").read_text()
    text = (EXAMPLE / "service.yaml").read_text().replace("python:3.12-slim", sample_image)
    return [
        yaml.safe_load((EXAMPLE / "plan2database.yaml").read_text()),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "trading-service"},
            "data": {"trading_service.py": script},
        },
        yaml.safe_load(text),
    ]


def cluster_kind() -> str:
    """What `PLAN2_CLUSTER=auto` comes to here: kind, node or current."""
    try:
        return kinds.chosen().name
    except kinds.ClusterFailed as error:
        raise StepFailed(str(error)) from error
