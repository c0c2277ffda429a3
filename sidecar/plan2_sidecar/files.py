"""A file somebody else replaces, noticed by `stat`: how a mounted Secret changes under us.

kubelet swaps the symlink `..data`, so the resolved file's inode and times change at once. A
stat of a tmpfs file costs microseconds, which is why nothing here is asynchronous.
"""

from pathlib import Path

Stamp = tuple[int, int, int, int]


class WatchedFile:
    """A path and what was last seen there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Stamp | None = None

    def changed(self) -> bytes | None:
        """The content when it is not the one read last, else None; also None with no file.

        A file that vanishes is no change: the last content stays in force.
        """
        try:
            stat = self.path.stat()
            stamp = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._seen:
                return None
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        self._seen = stamp
        return content
