"""The connection document as a mounted Secret: swapped, broken, missing."""

from pathlib import Path

import pytest

from plan2_contract import connection
from plan2_contract.connection import Document, Engines, KeyValue
from plan2_sidecar.connections import ConnectionEnvironment, ConnectionFile


class MountedSecret:
    """A directory as kubelet keeps it: files are links through `..data`, which is swapped."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "connection.json"
        self._versions = 0

    def write(self, content: bytes) -> None:
        self._versions += 1
        version = self.directory / f"..{self._versions}"
        version.mkdir()
        (version / "connection.json").write_bytes(content)
        fresh = self.directory / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.directory / "..data")
        if not self.path.is_symlink():
            self.path.symlink_to("..data/connection.json")


@pytest.fixture
def secret(tmp_path: Path) -> MountedSecret:
    return MountedSecret(tmp_path)


def document(host: str) -> Document:
    return Document(version=1, engines=Engines(dragonflydb=KeyValue(host=host, port=6379)))


def test_a_document_is_given_once(secret: MountedSecret) -> None:
    secret.write(connection.encode(document("a")))
    connections = ConnectionFile(secret.path)

    assert connections.poll() == document("a")
    assert connections.poll() is None


def test_a_swapped_document_is_noticed(secret: MountedSecret) -> None:
    secret.write(connection.encode(document("a")))
    connections = ConnectionFile(secret.path)
    connections.poll()

    secret.write(connection.encode(document("b")))

    assert connections.poll() == document("b")


@pytest.mark.parametrize(
    "content", [b'{"version": 1, "engines": {"redis": {"host": "\xff"}}}', b"\xff"]
)
def test_a_document_that_is_not_utf_8_changes_nothing(
    secret: MountedSecret, content: bytes
) -> None:
    secret.write(content)

    assert ConnectionFile(secret.path).poll() is None


def test_a_file_that_comes_later_is_noticed(secret: MountedSecret) -> None:
    connections = ConnectionFile(secret.path)
    assert connections.poll() is None

    secret.write(connection.encode(document("a")))

    assert connections.poll() == document("a")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"version": 1}', b'{"version": 99, "engines": {}}', b"\xff"],
    ids=["empty", "cut", "incomplete", "newer", "binary"],
)
def test_a_document_that_cannot_be_read_changes_nothing(
    secret: MountedSecret, content: bytes
) -> None:
    secret.write(connection.encode(document("a")))
    connections = ConnectionFile(secret.path)
    connections.poll()

    secret.write(content)

    assert connections.poll() is None
    secret.write(connection.encode(document("b")))
    assert connections.poll() == document("b")


def test_a_file_that_vanishes_changes_nothing(secret: MountedSecret) -> None:
    secret.write(connection.encode(document("a")))
    connections = ConnectionFile(secret.path)
    connections.poll()

    secret.path.unlink()

    assert connections.poll() is None


def test_what_stays_wrong_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    connections = ConnectionFile(directory)

    assert [connections.poll() for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1


def test_the_classic_variables_are_a_document_too() -> None:
    connections = ConnectionEnvironment({"DRAGONFLY_HOST": "a"})

    assert connections.poll() == document("a")
    assert connections.poll() is None
