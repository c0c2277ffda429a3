"""Makes every image the tests use and puts them into a cluster without a registry.

`python tests/images/build.py [NAME …]` builds what is missing and prints the path of one OCI
archive that holds the images named (all of them when none is); `--list` shows the names; `load`
brings those that the running cluster lacks to its nodes. What was built stands in
$PLAN2_CACHE/images (or ~/.cache/plan2/images), keyed by all that went into it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # started as a script
    sys.path.insert(0, str(HERE.parent))

from images import debian, oci, product, redis_cell  # noqa: E402
from images.oci import Blob, Blobs, Image  # noqa: E402
from images.recipes import ENGINE, PRODUCTS, RECIPES, Base, Recipe  # noqa: E402
from tools import build as tools  # noqa: E402
from tools.apt import PackagesMissing  # noqa: E402
from tools.progress import CommandFailed, say  # noqa: E402

TAG = "dev"
SIDECAR = HERE.parents[1] / "sidecar"
# Raised when the way of making a layer changes, so that none of the old are used.
FORMAT = "1"


def names() -> list[str]:
    """Every image, the product's last: they take the longest to change and the least to wait."""
    return [*RECIPES, *PRODUCTS]


def reference(name: str) -> str:
    """The image's name as pods write it."""
    place = "plan2" if name in PRODUCTS else "plan2-test"
    return f"localhost/{place}/{name}:{TAG}"


class Builder:
    """One run; holds the cache's lock for as long as it lives."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.blobs = Blobs(cache / "blobs")
        (cache / "layers").mkdir(exist_ok=True)

    def image(self, name: str) -> Image:
        """Built, or found in the cache."""
        if name in PRODUCTS:
            base = self._base(RECIPES["sample"].base)
            return product.image(self._cache, self.blobs, name, reference(name), base)
        recipe = RECIPES[name]
        layers = [self._base(recipe.base)]
        if recipe.requirements:
            layers.append(self._library(recipe))
        if recipe.programs:
            layers.append(self._programs(recipe))
        layers.append(self._files(recipe))
        machine = platform.machine()
        return oci.image(self.blobs, reference(name), layers, recipe.settings, machine)

    def archive(self, images: Sequence[Image]) -> Path:
        """One archive; older ones are removed."""
        digest = hashlib.sha256("".join(image.blobs[0].digest for image in images).encode())
        target = self._cache / f"images-{digest.hexdigest()[:16]}.tar"
        if not target.exists():
            for old in self._cache.glob("images-*.tar*"):
                old.unlink()
            oci.write_archive(self.blobs, images, target)
        return target

    # -- layers --------------------------------------------------------------------------------

    def _base(self, base: Base) -> Blob:
        key = f"{base!r} {debian.UNNEEDED}"
        return self._layer(f"base {base.name}", key, lambda file: debian.root(base, file))

    def _library(self, recipe: Recipe) -> Blob:
        requirements = HERE / recipe.requirements

        def make(file: Path) -> None:
            with tempfile.TemporaryDirectory() as folder:
                debian.install(requirements, Path(folder))
                oci.layer_of(Path(folder), f"{ENGINE}/lib", file)

        return self._layer(f"{recipe.name}: Python packages", requirements.read_text(), make)

    def _programs(self, recipe: Recipe) -> Blob:
        found = {place: _program(tool) for place, tool in recipe.programs.items()}
        key = repr(sorted((place, str(path)) for place, path in found.items()))

        def make(file: Path) -> None:
            with tempfile.TemporaryDirectory() as folder:
                for place, path in found.items():
                    target = Path(folder) / place.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
                    target.chmod(0o755)
                _flat_layer(Path(folder), file)

        return self._layer(f"{recipe.name}: programs", key, make)

    def _files(self, recipe: Recipe) -> Blob:
        source = HERE / recipe.folder
        files = sorted(source.glob("*")) if recipe.folder else []
        files = [file for file in files if file.suffix != ".txt" and file.is_file()]
        contents = [(file.name, file.read_bytes()) for file in files]
        contents += [
            (str(file.relative_to(SIDECAR)), file.read_bytes()) for file in _modules(recipe.package)
        ]
        key = repr((contents, recipe.links, recipe.directories))

        def make(file: Path) -> None:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                for name, content in contents:
                    target = root / ENGINE.lstrip("/") / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                    target.chmod(0o755 if content.startswith(b"#!") else 0o644)
                for place, points_to in recipe.links.items():
                    link = root / place.lstrip("/")
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(points_to)
                for directory in recipe.directories:
                    (root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
                _flat_layer(root, file)

        return self._layer(f"{recipe.name}: files", key, make)

    def _layer(self, title: str, key: str, make: Callable[[Path], None]) -> Blob:
        digest = hashlib.sha256(f"{FORMAT} {platform.machine()} {title} {key}".encode())
        record = self._cache / "layers" / f"{digest.hexdigest()[:24]}.json"
        if record.exists():
            blob = Blob(**json.loads(record.read_text()))
            if self.blobs.path(blob.digest).exists():
                return blob
        started = time.monotonic()
        say(f"image layer {title}: building")
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            file = Path(folder) / "layer.tar"
            make(file)
            blob = self.blobs.adopt(oci.LAYER, file)
        record.write_text(json.dumps(asdict(blob)))
        size = blob.size // 1_000_000
        say(f"image layer {title}: {size} MB in {time.monotonic() - started:.0f} s")
        return blob


def _modules(package: str) -> list[Path]:
    """The package's files, and what makes the folders above it packages."""
    if not package:
        return []
    above = Path(package).parents
    outer = [SIDECAR / folder / "__init__.py" for folder in above if folder != Path()]
    return [*outer, *sorted((SIDECAR / package).glob("*.py"))]


def _flat_layer(root: Path, file: Path) -> None:
    """A folder's contents as the layer's own root."""
    oci.layer_of(root, ".", file)


def _program(tool: str) -> Path:
    return redis_cell.path() if tool == "redis-cell" else tools.program(tool)


@contextmanager
def builder() -> Iterator[Builder]:
    """One at a time for each cache; a second waits for the first."""
    cache = tools.cache_root() / "images"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Builder(cache)


def build(wanted: Sequence[str]) -> tuple[list[Image], Path]:
    """The images and the archive that holds them."""
    with builder() as run:
        images = [run.image(name) for name in wanted]
        return images, run.archive(images)


def load(wanted: Sequence[str]) -> None:
    """Bring to the cluster's nodes what they do not have, in this very content."""
    from cluster import kinds
    from images import loaded

    cluster = kinds.chosen()
    with builder() as run:
        images = [run.image(name) for name in wanted]
        there = loaded.digests(cluster)
        absent = [image for image in images if there.get(image.name) != image.blobs[0].digest]
        if not absent:
            say(f"images: all {len(images)} are in the cluster")
            return
        say(f"images: loading {', '.join(image.name for image in absent)}")
        archive = run.archive(absent)
        cluster.load_images([archive])


def main() -> int:
    """0 when all is built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="images, or `load` and images")
    parser.add_argument("--list", action="store_true", help="print every image's name")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name}\t{reference(name)}" for name in names()))
        return 0
    loads = options.names[:1] == ["load"]
    wanted = options.names[1:] if loads else options.names
    if unknown := set(wanted) - set(names()):
        parser.error(f"no image named {', '.join(sorted(unknown))}: try --list")
    try:
        if loads:
            load(wanted or names())
        else:
            _, archive = build(wanted or names())
            print(archive)
    except (
        subprocess.CalledProcessError,
        CommandFailed,
        PackagesMissing,
        tools.GoMissing,
    ) as error:
        say(f"{error}\n{getattr(error, 'stderr', '') or ''}")
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main())
