"""Images as OCI blobs, written by hand: layers once, however many images stand on them.

Blobs live in the cache, named by their digest; an archive is put together from the blobs of the
images asked for. No container engine takes part.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Something in the store; size in bytes."""

    media_type: str
    digest: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Settings:
    """What the image's configuration says; `user` is `uid:gid`."""

    entrypoint: Sequence[str]
    command: Sequence[str] = ()
    user: str = "65532:65532"
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = "/"
    stop_signal: str = "SIGTERM"


@dataclass(frozen=True)
class Image:
    """A named manifest and every blob it needs, itself first."""

    name: str
    blobs: Sequence[Blob]


class Blobs:
    """The store. Files appear in one step, so that a killed build leaves nothing half."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        return self.folder / digest.removeprefix("sha256:")

    def put(self, media_type: str, content: bytes) -> Blob:
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder / digest
        if not path.exists():
            fresh = path.with_name(f"{digest}.{os.getpid()}")
            fresh.write_bytes(content)
            fresh.replace(path)
        return Blob(media_type, f"sha256:{digest}", len(content))

    def adopt(self, media_type: str, file: Path) -> Blob:
        """Move a file into the store."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        size = file.stat().st_size
        file.replace(self.folder / digest)
        return Blob(media_type, f"sha256:{digest}", size)

    def json(self, media_type: str, value: object) -> Blob:
        return self.put(media_type, json.dumps(value, sort_keys=True).encode())


def layer_of(folder: Path, prefix: str, target: Path) -> None:
    """Write a layer: everything in a folder below `prefix`, owned by root, readable by all."""

    def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        executable = entry.isdir() or bool(entry.mode & 0o100)
        entry.mode = 0o755 if executable else 0o644
        return entry

    with tarfile.open(target, "w") as layer:
        layer.add(folder, arcname=prefix.strip("/"), filter=owned)


def image(
    blobs: Blobs, name: str, layers: Sequence[Blob], settings: Settings, machine: str
) -> Image:
    """Put configuration and manifest into the store."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environment |= settings.env
    config = blobs.json(
        CONFIG,
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {
                "Entrypoint": list(settings.entrypoint),
                "Cmd": list(settings.command),
                "Env": [f"{key}={value}" for key, value in environment.items()],
                "User": settings.user,
                "WorkingDir": settings.working_directory,
                "StopSignal": settings.stop_signal,
            },
            # Layers are not compressed, so a layer's digest is its diff id too.
            # buildah builds on no image whose history does not name its layers.
            "history": [{"created_by": "tests/images/build.py"} for _ in layers],
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        },
    )
    manifest = blobs.json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
        },
    )
    return Image(name, (manifest, config, *layers))


def from_layout(blobs: Blobs, name: str, archive: Path) -> Image:
    """Take the one image of an OCI archive, as a container engine wrote it, into the store."""
    with tarfile.open(archive) as opened:
        index = json.load(_member(opened, "index.json"))
        manifest = index["manifests"][0]
        while "manifests" in (inner := json.load(_member(opened, _place(manifest["digest"])))):
            # Docker wraps the image and its attestations in an index of their own.
            manifest = inner["manifests"][0]
        wanted = [manifest]
        content = json.load(_member(opened, _place(manifest["digest"])))
        wanted += [content["config"], *content["layers"]]
        found = []
        for item in wanted:
            if not blobs.path(item["digest"]).exists():
                with blobs.path(item["digest"]).open("wb") as kept:
                    shutil.copyfileobj(_member(opened, _place(item["digest"])), kept, CHUNK)
            found.append(Blob(item["mediaType"], item["digest"], item["size"]))
    return Image(name, tuple(found))


def write_archive(blobs: Blobs, images: Sequence[Image], target: Path) -> None:
    """One OCI archive of all of them, each blob in it once."""
    manifests = []
    for item in images:
        described = item.blobs[0].descriptor()
        described["annotations"] = {
            "io.containerd.image.name": item.name,
            "org.opencontainers.image.ref.name": item.name,
        }
        manifests.append(described)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(fresh, "w") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        index = {"schemaVersion": 2, "manifests": manifests}
        _add(archive, "index.json", json.dumps(index).encode())
        for digest in dict.fromkeys(blob.digest for item in images for blob in item.blobs):
            archive.add(blobs.path(digest), arcname=_place(digest))
    fresh.replace(target)


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _member(archive: tarfile.TarFile, name: str) -> Any:
    opened = archive.extractfile(name)
    if opened is None:
        raise FileNotFoundError(name)
    return opened


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
