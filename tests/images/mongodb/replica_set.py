"""A replica set of one member: initiated once, primary from then on."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bson import ObjectId, Timestamp


class ReplicaSetError(Exception):
    """Refused; code and name are MongoDB's."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code, self.name = code, name


class ReplicaSet:
    """`name` is what --replSet gave; empty makes a standalone server, always writable."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self._file = file
        self._started = time.monotonic()
        self.config: dict[str, Any] | None = (
            json.loads(file.read_text()) if name and file.exists() else None
        )

    @property
    def writable(self) -> bool:
        return not self.name or self.config is not None

    def initiate(self, config: dict[str, Any], self_host: str) -> None:
        """The members of the config, or this host when it names none."""
        if not self.name:
            raise ReplicaSetError(
                76, "NoReplicationEnabled", "server is not running with --replSet"
            )
        if self.config is not None:
            raise ReplicaSetError(23, "AlreadyInitialized", "already initialized")
        config = dict(config) or {"_id": self.name, "members": [{"_id": 0, "host": self_host}]}
        if config.get("_id") != self.name:
            message = f"Attempting to initiate a replica set with name {config.get('_id')}, "
            message += f"but command line reports {self.name}; rejecting"
            raise ReplicaSetError(93, "InvalidReplicaSetConfig", message)
        self._keep(config | {"version": 1, "term": 1})

    def reconfigure(self, config: dict[str, Any]) -> None:
        """replSetReconfig; the version must grow."""
        if self.config is None:
            raise self.not_initialised()
        if int(config.get("version", 0)) <= int(self.config["version"]):
            message = f"version {config.get('version')} is not newer than {self.config['version']}"
            raise ReplicaSetError(103, "NewReplicaSetConfigurationIncompatible", message)
        self._keep(config)

    def _keep(self, config: dict[str, Any]) -> None:
        settings = {"replicaSetId": str(ObjectId())} | dict(config.get("settings", {}))
        members = [{"priority": 1, "votes": 1} | dict(member) for member in config["members"]]
        self.config = config | {"members": members, "settings": settings}
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self.config, default=str))
        fresh.replace(self._file)

    def not_initialised(self) -> ReplicaSetError:
        return ReplicaSetError(94, "NotYetInitialized", "no replset config has been received")

    def hello(self, legacy: bool) -> dict[str, Any]:
        """The replication part of hello, or of isMaster."""
        writable = "ismaster" if legacy else "isWritablePrimary"
        if not self.name:
            return {writable: True}
        if self.config is None:
            info = "Does not have a valid replica set config"
            return {writable: False, "secondary": False, "isreplicaset": True, "info": info}
        hosts = [member["host"] for member in self.config["members"]]
        return {
            "hosts": hosts,
            "setName": self.name,
            "setVersion": int(self.config["version"]),
            writable: True,
            "secondary": False,
            "primary": hosts[0],
            "me": hosts[0],
            "electionId": ObjectId("7fffffff0000000000000001"),
            "lastWrite": {
                "opTime": {"ts": Timestamp(int(time.time()), 1), "t": 1},
                "lastWriteDate": datetime.now(UTC),
            },
        }

    def status(self) -> dict[str, Any]:
        """replSetGetStatus."""
        if self.config is None:
            raise self.not_initialised()
        return {
            "set": self.name,
            "date": datetime.now(UTC),
            "myState": 1,
            "term": 1,
            "members": [
                {
                    "_id": member["_id"],
                    "name": member["host"],
                    "health": 1.0,
                    "state": 1,
                    "stateStr": "PRIMARY",
                    "uptime": int(time.monotonic() - self._started),
                    "self": True,
                    "configVersion": int(self.config["version"]),
                }
                for member in self.config["members"]
            ],
        }
