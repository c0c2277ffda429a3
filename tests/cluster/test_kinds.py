"""Which cluster is chosen, and how the caller's own is asked for and left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import kinds
from cluster.control_plane import ControlPlane
from cluster.kinds import ClusterFailed
from cluster.node import Node
from e2e import demo, steps

CLI = Path(__file__).with_name("cli.py")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN2_STATE", str(tmp_path / "state"))


@pytest.fixture
def without_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker client whose engine does not answer."""
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def with_engine(without_engine: None, tmp_path: Path) -> None:
    """A docker client whose engine answers."""
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 0\n")


@pytest.mark.parametrize("wanted", ["kind", "node", "current"])
def test_the_kind_that_is_named_is_taken(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", wanted)

    assert kinds.chosen().name == wanted


@pytest.mark.usefixtures("with_engine")
def test_kind_is_taken_where_an_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "auto")

    assert kinds.chosen().name == "kind"


@pytest.mark.usefixtures("without_engine")
def test_a_client_without_its_engine_makes_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAN2_CLUSTER", raising=False)

    assert kinds.chosen().name == "node"


def test_an_unknown_kind_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "minikube")

    with pytest.raises(ClusterFailed, match="auto, kind, node, current"):
        kinds.chosen()


@pytest.mark.usefixtures("with_engine")
def test_the_demo_takes_the_same_cluster_as_cluster_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "auto")
    monkeypatch.setattr(Node, "exists", lambda self: True)

    # A node that stands is kept to, and takes other images than kind.
    assert (steps.cluster_kind(), kinds.chosen().name) == ("node", "node")


def test_the_demo_says_at_once_that_it_cannot_bring_images_to_your_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "current")
    monkeypatch.setattr(demo, "_side_by_side", lambda commands: pytest.fail("nothing is begun"))

    with pytest.raises(steps.StepFailed, match="registry"):
        demo.up()


def test_an_unknown_kind_ends_the_demo_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "minikube")
    monkeypatch.setattr(sys, "argv", ["demo.py", "up"])

    assert demo.main() == 1
    assert "choose auto, kind, node, current" in capsys.readouterr().err


@pytest.mark.cluster
def test_the_callers_own_cluster_is_used_only_after_a_yes(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "current")
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    monkeypatch.delenv("PLAN2_CLUSTER_YES", raising=False)
    tool = kinds.chosen()
    monkeypatch.setattr(type(tool), "kubeconfig", tmp_path / "copied")

    with pytest.raises(ClusterFailed, match="PLAN2_CLUSTER_YES=1"):
        tool.up()
    assert not tool.exists()

    monkeypatch.setenv("PLAN2_CLUSTER_YES", "1")
    tool.up()
    assert tool.is_up()

    tool.down()
    assert not tool.exists()
    assert control_plane.kubeconfig.exists()


def test_a_folder_with_other_files_is_never_made_a_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAN2_CLUSTER", "node")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "precious").touch()

    done = subprocess.run([sys.executable, CLI, "up"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "holds files that are not a node's" in done.stderr or "needs root" in done.stderr
    assert (tmp_path / "state" / "precious").exists()
