"""`make demo`: the main job on a real node, each step said as it happens.

Cluster up, images in, chart installed, `examples/01-trading-platform` applied, six engines
Ready, and a service with one label that writes to and reads from each of them. Exits 0 only
when all six answered.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e import steps
from e2e.steps import Kube, StepFailed, say

NAMESPACE = "trading"
CR = "aitrading"
READY_SECONDS = 900


def up() -> int:
    """The whole demo; the exit code."""
    started = time.monotonic()
    kind = steps.cluster_kind()
    if kind == "current":
        raise StepFailed(
            "PLAN2_CLUSTER=current: the demo cannot bring its images to a cluster that is not made"
            " here. Push them to a registry and install the chart as the README says."
        )
    say(f"cluster: {kind}; first a cluster and images, each built only where it is missing")
    # Where a registry answers the engines are the official images.
    images = [] if kind == "node" else ["operator", "sidecar"]
    _side_by_side(
        {
            "cluster": steps.python("tests/cluster/cli.py", "up"),
            "images": steps.python("tests/images/build.py", *images),
        }
    )
    _checked(steps.python("tests/images/build.py", "load", *images))
    kube = Kube(Path(steps.run(*steps.python("tests/cluster/cli.py", "kubeconfig")).strip()))
    say(f"cluster and images after {time.monotonic() - started:.0f} s; installing the chart")
    steps.install(kube, steps.stand_in_values() if kind == "node" else steps.product_values())

    kube.namespace(NAMESPACE)
    image = steps.SAMPLE_IMAGE if kind == "node" else "python:3.12-slim"
    database, *service = steps.example(image)
    in_namespace = f"--namespace={NAMESPACE}"
    kube.kubectl("delete", "job", "trading-service", in_namespace, "--ignore-not-found")
    kube.apply(database, in_namespace)
    say(f"kubectl apply -f {steps.EXAMPLE.name}/plan2database.yaml")
    steps.progress(kube, NAMESPACE, CR, READY_SECONDS)
    say(kube.kubectl("get", "plan2database", in_namespace).rstrip())
    kube.kubectl("wait", "--for=condition=Ready", f"p2db/{CR}", in_namespace, "--timeout=5s")

    say("a service with one label and no credentials:")
    kube.apply(service, in_namespace)
    answered = _run_service(kube, in_namespace)
    say(f"{time.monotonic() - started:.0f} s in all")
    say(_look_around(kube))
    return 0 if answered else 1


def down() -> int:
    """Takes the cluster down, and everything with it."""
    return subprocess.run(steps.python("tests/cluster/cli.py", "down"), check=False).returncode


def _run_service(kube: Kube, in_namespace: str) -> bool:
    def finished() -> dict[str, int]:
        seen = kube.get("job", "trading-service", in_namespace).get("status", {})
        return {key: seen[key] for key in ("succeeded", "failed") if seen.get(key)}

    outcome = steps.wait_until("the sample service", finished, seconds=300)
    print(kube.kubectl("logs", "job/trading-service", "-c", "app", in_namespace).rstrip())
    return bool(outcome.get("succeeded"))


def _look_around(kube: Kube) -> str:
    return "\n".join(
        (
            "look around:",
            f"  export KUBECONFIG={kube.kubeconfig}",
            f"  {kube.kubectl_program} --namespace {NAMESPACE} get p2db,statefulsets,pods,secrets",
            f"  {kube.kubectl_program} --namespace {NAMESPACE} describe p2db {CR}",
            "take it down:",
            "  make demo-down",
        )
    )


def _side_by_side(commands: dict[str, list[str]]) -> None:
    """Runs them together, each line marked with its name; raises StepFailed naming the first."""
    failed: list[str] = []

    def follow(name: str, command: list[str]) -> None:
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr or ():
                say(f"  [{name}] {line.rstrip()}")
        if process.returncode:
            failed.append(f"{name}: exit code {process.returncode}")

    threads = [threading.Thread(target=follow, args=item) for item in commands.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise StepFailed("; ".join(failed))


def _checked(command: list[str]) -> None:
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise StepFailed(" ".join(command[1:]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("up", "down"))
    action = parser.parse_args().action
    try:
        return up() if action == "up" else down()
    except StepFailed as error:
        say(f"demo failed: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
