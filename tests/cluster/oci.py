"""Images of a few files, written by hand as OCI archives: what a node needs before any other.

No container engine takes part, nothing is pulled. The archives are the same bytes each time.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Link:
    """A symbolic link of an image."""

    target: str


def write_archive(
    path: Path,
    name: str,
    *,
    files: Mapping[str, Path | Link],
    command: Sequence[str],
    machine: str,
) -> Path:
    """Write an image of one layer: executables from this machine's files, and links."""
    layer = _layer(files)
    config = _json(
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": [_descriptor(LAYER, layer)],
        }
    )
    named = _descriptor(MANIFEST, manifest)
    named["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    }
    contents = {f"blobs/sha256/{_hash(blob)}": blob for blob in (layer, config, manifest)}
    contents["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    contents["index.json"] = _json({"schemaVersion": 2, "manifests": [named]})
    with tarfile.open(path, "w") as archive:
        for member, content in contents.items():
            _add(archive, member, content)
    return path


def _layer(files: Mapping[str, Path | Link]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        for name, source in sorted(files.items()):
            if isinstance(source, Link):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, source.target
                layer.addfile(entry)
            else:
                _add(layer, name, source.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{_hash(content)}"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
