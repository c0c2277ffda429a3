"""kind: a cluster in containers, where a Docker engine answers.

The kind on the PATH is used, else the one that `tests/tools` builds.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.kinds import ClusterFailed
from tools import build
from tools.progress import CommandFailed, run, say

CLUSTER = "plan2"
CONFIG = Path(__file__).resolve().parents[2] / "kind-config.yaml"


class Kind:
    """The kind cluster `plan2`; see `kinds.Cluster` for what each method promises."""

    name = "kind"

    @property
    def kubeconfig(self) -> Path:
        return build.cache_root() / "kind" / "kubeconfig"

    def exists(self) -> bool:
        return self.kubeconfig.exists()

    def is_up(self) -> bool:
        if not self.exists():
            return False
        asked = subprocess.run(
            [_kubectl(), f"--kubeconfig={self.kubeconfig}", "get", "--raw=/readyz"],
            capture_output=True,
            check=False,
        )
        return asked.returncode == 0

    def up(self) -> None:
        if self.is_up():
            say(f"kind: already up, kubeconfig {self.kubeconfig}")
            return
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if CLUSTER in self._listed():
            say("kind: clearing away what an earlier run left")
            self._run("delete", "cluster", f"--name={CLUSTER}")
        self._run(
            "create",
            "cluster",
            f"--name={CLUSTER}",
            f"--config={CONFIG}",
            f"--kubeconfig={self.kubeconfig}",
            "--wait=180s",
        )
        say(f"kind: up, kubeconfig {self.kubeconfig}")

    def down(self) -> None:
        if not self.exists() and CLUSTER not in self._listed():
            say("kind: nothing to take down")
            return
        self._run("delete", "cluster", f"--name={CLUSTER}", f"--kubeconfig={self.kubeconfig}")
        self.kubeconfig.unlink(missing_ok=True)

    def load_images(self, archives: Sequence[Path]) -> None:
        for archive in archives:
            self._run("load", "image-archive", str(archive), f"--name={CLUSTER}")

    def status(self) -> list[str]:
        state = "answers" if self.is_up() else "does not answer"
        return [f"kind cluster {CLUSTER} {state}", f"kubeconfig {self.kubeconfig}"]

    def _listed(self) -> list[str]:
        listed = subprocess.run(
            [_kind(), "get", "clusters"], capture_output=True, text=True, check=False
        )
        if listed.returncode != 0:
            raise ClusterFailed(f"kind finds no Docker engine: {listed.stderr.strip()}")
        return listed.stdout.split()

    def _run(self, *arguments: str) -> None:
        try:
            run(f"kind {arguments[0]} {arguments[1]}", [_kind(), *arguments])
        except CommandFailed as error:
            raise ClusterFailed(str(error)) from error


def _kind() -> str:
    return shutil.which("kind") or str(build.program("kind"))


def _kubectl() -> str:
    return shutil.which("kubectl") or str(build.program("kubectl"))
