"""The programs that the tests build: kept by what went into them, whole or not at all."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tools import apt, build, golang
from tools.progress import CommandFailed
from tools.recipes import RECIPES


@pytest.fixture
def own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the smallest tool's source and an empty cache, both to be changed at will."""
    sources = tmp_path / "sources"
    shutil.copytree(build.HERE / "pause", sources / "pause")
    monkeypatch.setattr(build, "HERE", sources)
    monkeypatch.setenv("PLAN2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_wanted", lambda: golang.OLDEST)
    return sources / "pause"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_tool_stands_at_a_version(name: str) -> None:
    assert build.version(RECIPES[name]).startswith(("v", "own"))
    assert (build.HERE / name / "go.mod").exists()


@pytest.mark.parametrize("change", ["source", "recipe"])
def test_another_source_or_recipe_is_another_folder(change: str, own_tools: Path) -> None:
    recipe = RECIPES["pause"]
    before = build.folder(recipe)

    if change == "source":
        (own_tools / "main.go").write_text("package main\n\nfunc main() {}\n")
    else:
        recipe = dataclasses.replace(recipe, tags="other")

    assert build.folder(recipe) != before


def test_a_build_that_fails_says_why_and_leaves_no_folder(own_tools: Path) -> None:
    (own_tools / "main.go").write_text("package main\n\nfunc main() { missing() }\n")

    with pytest.raises(CommandFailed, match="undefined: missing"):
        build.ensure("pause")

    left = [path.name for path in (build.cache_root() / "tools").iterdir() if path.is_dir()]
    assert left == []


@pytest.mark.usefixtures("own_tools")
def test_what_was_built_is_not_built_again(capsys: pytest.CaptureFixture[str]) -> None:
    first = build.ensure("pause")
    assert "building" in capsys.readouterr().err

    second = build.ensure("pause")

    assert second == first
    assert capsys.readouterr().err == ""


def test_a_missing_go_is_named_with_its_remedy(
    own_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> None:
        raise apt.PackagesMissing("not root")

    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(apt, "ensure", refuse)

    with pytest.raises(golang.GoMissing, match=r"https://go\.dev/doc/install"):
        build.ensure("pause")

    assert own_tools.exists()


def test_an_older_go_fetches_a_newer_one(
    own_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module"
    (module / "bin").mkdir(parents=True)
    (module / "bin" / "go").write_text("#!/bin/sh\necho go version go1.26.8 linux/amd64\n")
    (module / "bin" / "go").chmod(0o444)
    older = tmp_path / "older"
    older.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "version) echo go version go1.19.8 linux/amd64;;\n"
        f'mod) echo \'{{"Dir": "{module}"}}\';;\n'
        "esac\n"
    )
    older.chmod(0o755)
    monkeypatch.setattr(golang, "_installed", lambda: str(older))

    found = golang.find(build.cache_root())

    assert golang.version(found) == (1, 26)
    assert own_tools.exists()


def test_a_package_that_nobody_has_is_missing() -> None:
    assert apt.missing(["dpkg", "plan2-no-such-package"]) == ["plan2-no-such-package"]
