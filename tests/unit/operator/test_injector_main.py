"""The injector's command line: what cannot be used is said in one line, not in a traceback."""

from pathlib import Path

import pytest

from plan2_operator.injector.__main__ import main


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN2_OPERATOR_NAMESPACE", "plan2-system")
    monkeypatch.setenv("PLAN2_SIDECAR_IMAGE", "plan2/sidecar:1")


def test_a_bad_variable_ends_the_program_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAN2_INJECTOR_PORT", "https")

    assert main() == 2
    assert "PLAN2_INJECTOR_PORT" in capsys.readouterr().err


def test_a_level_that_logging_does_not_know_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAN2_LOG_LEVEL", "loud")

    assert main() == 2
    assert "PLAN2_LOG_LEVEL='loud'" in capsys.readouterr().err


def test_without_a_cluster_the_program_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "not-there.yaml"))

    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("plan2-injector: no cluster is configured")
