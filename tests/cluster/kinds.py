"""Which cluster the tests use: kind, a node made here, or the caller's own.

`PLAN2_CLUSTER=auto|kind|node|current` decides; `auto` keeps to a node that already stands, then
takes kind where a Docker engine answers, else makes a node.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

DOCKER_SECONDS = 30


class ClusterFailed(Exception):
    """The cluster cannot be made, found or changed; the message says why and what to do."""


class Cluster(Protocol):
    """What every kind of cluster can do."""

    @property
    def name(self) -> str:
        """`kind`, `node` or `current`."""

    @property
    def kubeconfig(self) -> Path:
        """The path of an administrator's kubeconfig, there once the cluster is up."""

    def is_up(self) -> bool:
        """Whether it runs and answers."""

    def exists(self) -> bool:
        """Whether anything of it stands, running or not."""

    def up(self) -> None:
        """Bring it up; nothing happens when it already is."""

    def down(self) -> None:
        """End it and remove all that `up` made."""

    def load_images(self, archives: Sequence[Path]) -> None:
        """Bring images from OCI archives (tar files) to its nodes."""

    def status(self) -> list[str]:
        """What runs of it, in lines for a person."""


def chosen() -> Cluster:
    """The cluster that PLAN2_CLUSTER names."""
    # Imported here: a control plane alone, and choosing, need none of them.
    from cluster.current import Current
    from cluster.kind import Kind
    from cluster.node import Node

    wanted = os.environ.get("PLAN2_CLUSTER", "auto")
    if wanted == "auto":
        return Kind() if not Node().exists() and docker_answers() else Node()
    kinds: dict[str, type[Cluster]] = {"kind": Kind, "node": Node, "current": Current}
    if wanted not in kinds:
        raise ClusterFailed(f"PLAN2_CLUSTER={wanted}: choose auto, {', '.join(kinds)}")
    return kinds[wanted]()


def docker_answers() -> bool:
    """Whether a Docker engine, not only its client, is there."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run(
            [docker, "info"], capture_output=True, check=False, timeout=DOCKER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0
