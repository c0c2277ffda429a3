"""The caller's own cluster: the current context of their kubeconfig, used only after asking.

Nothing is made and nothing is ended but a copy of that one context, so that a context changed
later never redirects the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.kinds import ClusterFailed
from tools import build
from tools.progress import say


class Current:
    """The caller's context; see `kinds.Cluster` for what each method promises."""

    name = "current"

    @property
    def kubeconfig(self) -> Path:
        return build.cache_root() / "current" / "kubeconfig"

    def exists(self) -> bool:
        return self.kubeconfig.exists()

    def is_up(self) -> bool:
        return self.exists() and _answers(self.kubeconfig)

    def up(self) -> None:
        if self.is_up():
            say(f"current: already chosen, kubeconfig {self.kubeconfig}")
            return
        minified = subprocess.run(
            [_kubectl(), "config", "view", "--minify", "--flatten", "--raw", "--output=json"],
            capture_output=True,
            text=True,
            check=False,
        )
        if minified.returncode != 0:
            raise ClusterFailed(f"there is no current context: {minified.stderr.strip()}")
        _ask(json.loads(minified.stdout))
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(minified.stdout)
        if not _answers(self.kubeconfig):
            self.kubeconfig.unlink()
            raise ClusterFailed("the current context's API server does not answer")
        say(f"current: chosen, kubeconfig {self.kubeconfig}")

    def down(self) -> None:
        self.kubeconfig.unlink(missing_ok=True)
        say("current: forgotten; the cluster itself is yours and stays")

    def load_images(self, archives: Sequence[Path]) -> None:
        names = ", ".join(archive.name for archive in archives)
        raise ClusterFailed(
            f"{names}: images cannot be loaded into a cluster that is not made here; push them"
            " to a registry that it reaches"
        )

    def status(self) -> list[str]:
        state = "answers" if self.is_up() else "does not answer"
        return [f"current context {state}", f"kubeconfig {self.kubeconfig}"]


def _ask(config: dict[str, list[dict[str, dict[str, str]]]]) -> None:
    server = config["clusters"][0]["cluster"]["server"]
    question = f"Install Plan2 and its tests into {config['current-context']} ({server})?"
    if os.environ.get("PLAN2_CLUSTER_YES") == "1":
        say(f"{question} Yes, by PLAN2_CLUSTER_YES=1.")
        return
    if not sys.stdin.isatty():
        raise ClusterFailed(f"{question} Nobody is there to answer: set PLAN2_CLUSTER_YES=1.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ClusterFailed("not without your yes")


def _answers(kubeconfig: Path) -> bool:
    asked = subprocess.run(
        [_kubectl(), f"--kubeconfig={kubeconfig}", "get", "--raw=/version"],
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0


def _kubectl() -> str:
    return shutil.which("kubectl") or str(build.program("kubectl"))
