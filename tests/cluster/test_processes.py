"""Processes are known by more than their number, and only those that are ours are ended."""

import dataclasses
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import processes
from cluster.processes import Identity, Program, ProgramFailed


def program(folder: Path, name: str, *command: str) -> Program:
    found = shutil.which(command[0])
    assert found is not None
    return Program(name, [found, *command[1:]], folder, dict(os.environ))


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Identity]:
    identity = processes.start(program(tmp_path, "sleeper", "sleep", "300"))
    yield identity
    processes.stop([identity])


def test_a_recycled_number_is_never_taken_for_ours(sleeper: Identity, tmp_path: Path) -> None:
    earlier = dataclasses.replace(sleeper, started=sleeper.started - 1)
    record = tmp_path / "run" / "earlier.json"
    processes.write_record(record, earlier)

    processes.stop([earlier], grace_seconds=0)
    processes.send(earlier, signal.SIGKILL)

    assert processes.running(record) is None
    assert processes.is_alive(sleeper)


def test_a_record_from_before_a_reboot_names_nobody(sleeper: Identity, tmp_path: Path) -> None:
    record = tmp_path / "run" / "earlier.json"
    processes.write_record(record, dataclasses.replace(sleeper, boot="another boot"))

    assert processes.running(record) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'], ids=repr)
def test_a_broken_record_names_nobody(text: str, tmp_path: Path) -> None:
    record = tmp_path / "broken.json"
    record.write_text(text)

    assert processes.running(record) is None


def test_a_process_without_a_record_is_found_by_its_mark(sleeper: Identity, tmp_path: Path) -> None:
    processes.record_of(tmp_path, "sleeper").unlink()

    assert processes.marked(tmp_path) == [sleeper]
    assert processes.marked(tmp_path / "other") == []


def test_what_ignores_the_first_signal_is_killed(tmp_path: Path) -> None:
    stubborn = program(tmp_path, "stubborn", "sh", "-c", "trap '' TERM; echo on; sleep 300 & wait")
    identity = processes.start(stubborn)
    processes.wait_until(stubborn, lambda: "on" in stubborn.log.read_text(), timeout_seconds=10)

    processes.stop([identity], grace_seconds=0.2)

    assert not processes.is_alive(identity)
    processes.stop(processes.marked(tmp_path), grace_seconds=0)


def test_a_program_that_ends_by_itself_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    broken = program(tmp_path, "broken", "sh", "-c", "sleep 0.3; echo the reason; exit 3")
    processes.start(broken)

    with pytest.raises(ProgramFailed, match="the reason"):
        processes.wait_until(broken, lambda: False, timeout_seconds=10)


def test_a_process_of_the_caller_is_not_marked(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"]) as stranger:
        assert processes.marked(tmp_path) == []
        stranger.kill()
