"""The product's own images, from their Dockerfiles: by Docker where it answers, else by buildah.

buildah has no registry here: it builds on the tests' Debian base, and keeps its layers in the
cache, so that a change of our code alone repeats no installation.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import ssl
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

from images import oci
from images.oci import Blob, Blobs, Image, Settings
from tools import apt
from tools.progress import run

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SHARED = ("pyproject.toml", "uv.lock", "README.md")


def image(cache: Path, blobs: Blobs, name: str, reference: str, base: Blob) -> Image:
    """Built from `<name>/Dockerfile`, or found in the cache."""
    record = cache / "layers" / f"product-{name}-{_key(name, base)}.json"
    if record.exists():
        found = [Blob(**blob) for blob in json.loads(record.read_text())]
        if all(blobs.path(blob.digest).exists() for blob in found):
            return Image(reference, tuple(found))
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        archive = Path(folder) / "image.tar"
        if _docker_answers():
            _docker(name, reference, archive)
        else:
            _buildah(cache, blobs, name, reference, base, archive)
        made = oci.from_layout(blobs, reference, archive)
    for old in record.parent.glob(f"product-{name}-*.json"):
        old.unlink()
    record.write_text(json.dumps([asdict(blob) for blob in made.blobs]))
    return made


def _key(name: str, base: Blob) -> str:
    digest = hashlib.sha256(base.digest.encode())
    files = [ROOT / file for file in SHARED]
    for folder in ("contract", name):
        files += sorted(
            file
            for file in (ROOT / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        )
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def _docker_answers() -> bool:
    from cluster.kinds import docker_answers

    return docker_answers()


def _docker(name: str, reference: str, archive: Path) -> None:
    dockerfile = f"--file={ROOT / name / 'Dockerfile'}"
    run(f"image {name}", ["docker", "build", dockerfile, f"--tag={reference}", str(ROOT)])
    run(f"image {name}: saving", ["docker", "save", f"--output={archive}", reference])


def _buildah(
    cache: Path, blobs: Blobs, name: str, reference: str, base: Blob, archive: Path
) -> None:
    apt.ensure("buildah")
    buildah = _command(cache)
    base_name = _base(cache, blobs, base, buildah)
    arguments = [
        "build",
        "--isolation=chroot",
        "--layers",
        "--pull-never",
        f"--build-arg=BASE_IMAGE={base_name}",
        f"--file={ROOT / name / 'Dockerfile'}",
        f"--ignorefile={ROOT / '.dockerignore'}",
        f"--tag={reference}",
    ]
    if (host := _certificates()) is not None:
        arguments.append(f"--volume={host}:{CERTIFICATES}:ro")
        for variable in ("PIP_CERT", "SSL_CERT_FILE"):
            arguments.append(f"--build-arg={variable}={CERTIFICATES}")
    run(f"image {name}", [*buildah, *arguments, str(ROOT)], env=dict(os.environ))
    push = ["push", "--disable-compression", reference, f"oci-archive:{archive}"]
    run(f"image {name}: writing", [*buildah, *push], env=dict(os.environ))


def _command(cache: Path) -> list[str]:
    storage = cache / "buildah"
    storage.mkdir(exist_ok=True)
    driver = "overlay" if _overlay_works(storage) else "vfs"
    folders = [f"--root={storage / driver}", f"--runroot={storage / 'run'}"]
    # Policy and registries are given, so that the host's (or none) do not matter.
    policy = storage / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return ["buildah", *folders, f"--storage-driver={driver}"]


def _overlay_works(storage: Path) -> bool:
    """Whether the kernel lays file systems over one another where the cache is."""
    with tempfile.TemporaryDirectory(dir=storage) as folder:
        names = ("lower", "upper", "work", "merged")
        lower, upper, work, merged = (Path(folder) / name for name in names)
        for place in (lower, upper, work, merged):
            place.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mounted = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)],
            check=False,
            capture_output=True,
        )
        if mounted.returncode == 0:
            subprocess.run(["umount", str(merged)], check=True)
        return mounted.returncode == 0


def _base(cache: Path, blobs: Blobs, base: Blob, buildah: list[str]) -> str:
    name = f"localhost/plan2-test/base:{base.digest[7:19]}"
    known = subprocess.run([*buildah, "images", name], check=False, capture_output=True)
    if known.returncode != 0:
        settings = Settings(entrypoint=(), command=("python3",), user="")
        image = oci.image(blobs, name, [base], settings, platform.machine())
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            archive = Path(folder) / "base.tar"
            oci.write_archive(blobs, [image], archive)
            pull = ["pull", "--quiet", "--policy=always", f"oci-archive:{archive}"]
            run("base image for buildah", [*buildah, *pull], env=dict(os.environ))
    return name


def _certificates() -> Path | None:
    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    for candidate in (named, str(CERTIFICATES)):
        if candidate and Path(candidate).is_file():
            return Path(candidate).resolve()
    return None
