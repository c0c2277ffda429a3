"""The operator's command line: what cannot be used is said in one line, not in a traceback."""

import pytest

from plan2_operator.__main__ import main


def test_a_bad_variable_ends_the_program_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAN2_HEALTH_PORT", "http")

    with pytest.raises(SystemExit) as ended:
        main([])

    assert ended.value.code == 2
    assert "PLAN2_HEALTH_PORT" in capsys.readouterr().err


def test_a_kubeconfig_that_is_not_there_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "")

    with pytest.raises(SystemExit) as ended:
        main(["--kubeconfig=not-there.yaml"])

    assert ended.value.code == 2
    assert "not-there.yaml" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--kubeconfig", "--namespace", "--verbose"):
        assert option in text
