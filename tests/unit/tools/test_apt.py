"""Debian packages: one process installs at a time, since apt waits for no one at its lists."""

import threading
from pathlib import Path

import pytest

from tools import apt

APT_GET = """#!/bin/sh
mkdir {folder}/busy || {{ echo "E: Could not get lock" >&2; exit 100; }}
echo "$@" >> {folder}/calls
sleep 0.3
case "$*" in *install*) touch {folder}/installed;; esac
rmdir {folder}/busy
"""
DPKG_QUERY = """#!/bin/sh
test -e {folder}/installed && echo "thing ii"
exit 0
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an apt-get that refuses company, first on PATH."""
    for name, script in {"apt-get": APT_GET, "dpkg-query": DPKG_QUERY}.items():
        program = tmp_path / name
        program.write_text(script.format(folder=tmp_path))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(apt, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(apt, "ASIDE", tmp_path / "policy-rc.d.before")
    monkeypatch.setattr(apt, "_as_root", lambda _: [])
    return tmp_path


def test_two_that_need_the_same_package_at_once_install_it_once(machine: Path) -> None:
    failures: list[BaseException] = []

    def need() -> None:
        try:
            apt.ensure("thing")
        except BaseException as error:  # noqa: BLE001  a thread's error is the test's
            failures.append(error)

    threads = [threading.Thread(target=need) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    calls = (machine / "calls").read_text().splitlines()
    assert [line.split()[-1] for line in calls] == ["update", "thing"]


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        pytest.param(None, {"nodejs", "npm"}, id="none"),
        pytest.param("v16.20.2", {"nodejs", "npm"}, id="too-old"),
        pytest.param("v18.20.4", {"npm"}, id="new-enough"),
    ],
)
def test_node_is_installed_where_none_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, wanted: set[str]
) -> None:
    if version is not None:
        program = tmp_path / "node"
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert {"nodejs", "npm"} & set(apt.listed()) == wanted
