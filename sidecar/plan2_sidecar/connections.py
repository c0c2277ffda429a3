"""Where the connection document comes from: the mounted file, or the classic environment.

`poll()` is called once a second, and at once when an engine refuses our credentials.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from plan2_contract import connection, environment
from plan2_contract.connection import Document, UnreadableDocument
from plan2_sidecar.files import WatchedFile

LOG = logging.getLogger(__name__)


class Connections(Protocol):
    """A source of connection documents."""

    def poll(self) -> Document | None:
        """A document newer than the last one given, or None."""
        ...


class ConnectionFile:
    """The document under PLAN2_CONNECTION_FILE; one that cannot be read changes nothing."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path)
        self._said = ""

    def poll(self) -> Document | None:
        """The file's document when it changed and can be read."""
        try:
            content = self._file.changed()
            return None if content is None else connection.decode(content)
        except (UnreadableDocument, OSError) as error:
            if str(error) != self._said:
                LOG.warning("%s: %s; the connections stay as they are", self._file.path, error)
            self._said = str(error)
            return None


class ConnectionEnvironment:
    """The classic variables, read once; raises InvalidVariable at the start."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._document: Document | None = environment.document(environ)

    def poll(self) -> Document | None:
        """The document the first time, None after."""
        document, self._document = self._document, None
        return document
