"""The cluster from a shell: `python tests/cluster/cli.py up|down|kubeconfig|status|load-images`.

Progress goes to stderr, answers to stdout; PLAN2_CLUSTER chooses the kind of cluster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import kinds
from cluster.kinds import Cluster, ClusterFailed
from cluster.processes import ProgramFailed
from tools.apt import PackagesMissing
from tools.golang import GoMissing
from tools.progress import CommandFailed, say


def main() -> int:
    parser = argparse.ArgumentParser(description="A cluster for Plan2's tests and its demo.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("up", help="bring it up, or do nothing when it is")
    actions.add_parser("down", help="end it and leave nothing behind")
    actions.add_parser("kind", help="print which kind of cluster is chosen")
    actions.add_parser("kubeconfig", help="print the path of its kubeconfig")
    actions.add_parser("status", help="print what of it runs")
    load = actions.add_parser("load-images", help="bring OCI archives to its nodes")
    load.add_argument("archive", nargs="+", type=Path)
    asked = parser.parse_args()
    try:
        return _act(asked.action, asked)
    except subprocess.CalledProcessError as error:
        say(f"{error}\n{error.stderr or ''}")
    except (
        ClusterFailed,
        CommandFailed,
        GoMissing,
        PackagesMissing,
        ProgramFailed,
    ) as error:
        say(str(error))
    except KeyboardInterrupt:
        say("interrupted; the next `up` or `down` clears what was begun")
    return 1


def _act(action: str, asked: argparse.Namespace) -> int:
    cluster = kinds.chosen()
    match action:
        case "up":
            cluster.up()
        case "down":
            cluster.down()
        case "kind":
            print(cluster.name)
        case "kubeconfig":
            print(_kubeconfig(cluster))
        case "status":
            print("\n".join(cluster.status()))
            return 0 if cluster.is_up() else 1
        case "load-images":
            cluster.load_images(asked.archive)
    return 0


def _kubeconfig(cluster: Cluster) -> Path:
    if not cluster.kubeconfig.exists():
        raise ClusterFailed("no cluster is up: make cluster-up")
    return cluster.kubeconfig


if __name__ == "__main__":
    raise SystemExit(main())
