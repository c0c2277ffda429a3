"""Which images the nodes of a cluster have, by name and manifest."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any


def digests(cluster: Any) -> dict[str, str]:
    """Image name to manifest digest; empty where it cannot be told, and all is loaded again."""
    command = _listing(cluster)
    if not command:
        return {}
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {}
    for line in listed.stdout.splitlines()[1:]:
        words = line.split()
        if len(words) > 2 and words[2].startswith("sha256:"):
            found[words[0]] = words[2]
    return found


def _listing(cluster: Any) -> list[str]:
    from cluster import layout, runtime

    if cluster.name == "node":
        socket = layout.layout().socket
        ctr = [runtime.program("ctr"), f"--address={socket}"]
        return [*ctr, "--namespace=k8s.io", "images", "list"]
    if cluster.name == "kind" and (docker := shutil.which("docker")):
        from cluster.kind import CLUSTER

        node = f"{CLUSTER}-control-plane"
        return [docker, "exec", node, "ctr", "--namespace=k8s.io", "images", "list"]
    return []
