"""How images are put together: recipes that fit the product, archives that hold each blob once."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fixtures.fix_engines import EngineServer
from images import oci
from images.oci import Blobs, Settings
from images.recipes import HERE, PRODUCTS, RECIPES
from plan2_contract.engines import Engine


def test_every_engine_has_a_test_image() -> None:
    assert {str(engine) for engine in Engine} <= set(RECIPES)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_products_images_run_as_nobody_on_a_base_of_choice(name: str) -> None:
    text = (HERE.parents[1] / name / "Dockerfile").read_text()

    assert "ARG BASE_IMAGE=python:" in text
    assert "\nUSER 65532:65532\n" in text
    assert f'ENTRYPOINT ["plan2-{name}"]' in text


def test_what_an_image_needs_stands_in_the_checkout() -> None:
    for recipe in RECIPES.values():
        assert (HERE / recipe.folder).is_dir(), recipe.name
        if recipe.requirements:
            pins = (HERE / recipe.requirements).read_text().splitlines()
            assert all("==" in line or line.startswith("#") for line in pins), recipe.name


def test_images_share_their_layers_in_one_archive(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    folder = tmp_path / "files"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/run").write_text("#!/bin/sh\n")
    (folder / "bin/run").chmod(0o700)
    oci.layer_of(folder, "opt", tmp_path / "layer.tar")
    layer = blobs.adopt(oci.LAYER, tmp_path / "layer.tar")
    settings = Settings(entrypoint=("/opt/bin/run",))
    images = [oci.image(blobs, f"localhost/{n}:dev", [layer], settings, "x86_64") for n in "ab"]

    oci.write_archive(blobs, images, tmp_path / "images.tar")

    with tarfile.open(tmp_path / "images.tar") as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
    assert len(names) == len(set(names))
    assert f"blobs/sha256/{layer.digest[7:]}" in names
    wanted = ["localhost/a:dev", "localhost/b:dev"]
    found = [m["annotations"]["io.containerd.image.name"] for m in index["manifests"]]
    assert found == wanted
    with tarfile.open(blobs.path(layer.digest)) as made:
        entry = made.getmember("opt/bin/run")
    assert (entry.uid, entry.mode) == (0, 0o755)


@pytest.mark.parametrize(
    ("expression", "code", "printed"),
    [
        pytest.param("db.adminCommand('ping').ok", 0, "1", id="ping"),
        pytest.param("quit(db.hello().secondary ? 0 : 1)", 1, "", id="no"),
        pytest.param(
            "quit(db.hello().isWritablePrimary || db.hello().secondary ? 0 : 1)", 0, "", id="yes"
        ),
        pytest.param("db.things.find()", 1, "", id="unknown"),
    ],
)
def test_mongosh_answers_the_probes(
    mongodb: EngineServer, expression: str, code: int, printed: str
) -> None:

    shell = HERE / "mongodb/mongosh"
    command = [sys.executable, str(shell), "--quiet", "--norc", f"--port={mongodb.port}"]
    ended = subprocess.run(
        [*command, "--eval", expression],
        capture_output=True,
        text=True,
        timeout=20,
        env={"PYTHONPATH": str(shell.parent)},
    )

    assert (ended.returncode, ended.stdout.strip()) == (code, printed)
