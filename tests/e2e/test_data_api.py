"""The services' calls from a pod: the roles the operator gives an application are enough."""

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import steps
from e2e.steps import Kube
from fixtures.fix_installation import NAMESPACE

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

IN_NAMESPACE = f"--namespace={NAMESPACE}"
CLIENT = steps.ROOT / "clients" / "python" / "plan2_client"
PROGRAM = Path(__file__).parent / "programs" / "service_calls.py"
NAME = "service-calls"


def zipped_client() -> str:
    """The Python client as one file, which Python imports from."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for module in sorted(CLIENT.glob("*.py")):
            archive.write(module, f"plan2_client/{module.name}")
    return base64.b64encode(content.getvalue()).decode()


def job() -> dict[str, Any]:
    """The first example's Job, with another program."""
    text = (steps.EXAMPLE / "service.yaml").read_text()
    text = text.replace("python:3.12-slim", steps.SAMPLE_IMAGE).replace("trading-service", NAME)
    made: dict[str, Any] = yaml.safe_load(text)
    made["spec"]["backoffLimit"] = 0
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["python3", "/app/service_calls.py"]
    container["env"] = [{"name": "PYTHONPATH", "value": "/app/plan2_client.zip"}]
    return made


def config_map() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME},
        "data": {"service_calls.py": PROGRAM.read_text()},
        "binaryData": {"plan2_client.zip": zipped_client()},
    }


def test_every_kind_of_call_works_with_the_applications_own_roles(platform: Kube) -> None:
    platform.apply([config_map(), job()], IN_NAMESPACE)

    def ended() -> bool:
        status = platform.get("job", NAME, IN_NAMESPACE).get("status", {})
        return bool(status.get("succeeded") or status.get("failed"))

    steps.wait_until("the job ends", ended, seconds=240)
    said = platform.kubectl("logs", f"job/{NAME}", "-c", "app", IN_NAMESPACE)

    assert "the services' calls work in a pod" in said, said
