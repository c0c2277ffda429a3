"""Which Go programs the tests build, from which packages, with which linker settings.

Data only: the versions of the modules themselves stand in each tool's go.mod, where
`go get` moves them; `build.py` turns a recipe into programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KUBERNETES = "v1.37.2"


@dataclass(frozen=True)
class Recipe:
    """How one tool is built.

    `programs` maps a program's file name to its package, `stamps` the linker's -X names to
    their values, `vendored` the files that the module needs and its zip lacks to their text.
    What is built `on_demand` is left out when all are asked for.
    """

    name: str
    module: str
    programs: dict[str, str]
    stamps: dict[str, str] = field(default_factory=dict)
    tags: str = ""
    vendored: dict[str, str] = field(default_factory=dict)
    on_demand: bool = field(default=False, repr=False)


def _kubernetes() -> Recipe:
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    base = "k8s.io/component-base/version"
    commands = (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    )
    return Recipe(
        name="kubernetes",
        module="k8s.io/kubernetes",
        programs={command: f"k8s.io/kubernetes/cmd/{command}" for command in commands},
        # Without these the version reads v0.0.0-master, and clients refuse the skew.
        stamps={
            f"{base}.gitVersion": KUBERNETES,
            f"{base}.gitMajor": major,
            f"{base}.gitMinor": minor,
            f"{base}.gitTreeState": "clean",
            "k8s.io/client-go/pkg/version.gitVersion": KUBERNETES,
            "k8s.io/client-go/pkg/version.gitMajor": major,
            "k8s.io/client-go/pkg/version.gitMinor": minor,
        },
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="etcd",
            module="go.etcd.io/etcd/server/v3",
            programs={"etcd": "go.etcd.io/etcd/server/v3"},
        ),
        _kubernetes(),
        Recipe(
            name="coredns",
            module="github.com/coredns/coredns",
            programs={"coredns": "github.com/coredns/coredns"},
        ),
        Recipe(
            name="local-path-provisioner",
            module="github.com/rancher/local-path-provisioner",
            programs={"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
        ),
        Recipe(
            name="ferretdb",
            module="github.com/FerretDB/FerretDB",
            programs={"ferretdb": "github.com/FerretDB/FerretDB/cmd/ferretdb"},
            # Its build embeds this file, the module's zip has none, and it panics at start.
            vendored={"github.com/FerretDB/FerretDB/build/version/version.txt": "v1.24.2\n"},
        ),
        Recipe(
            name="weaviate",
            module="github.com/weaviate/weaviate",
            programs={"weaviate-server": "github.com/weaviate/weaviate/cmd/weaviate-server"},
            stamps={"github.com/weaviate/weaviate/usecases/build.Version": "1.35.2"},
        ),
        Recipe(
            name="helm",
            module="helm.sh/helm/v3",
            programs={"helm": "helm.sh/helm/v3/cmd/helm"},
            stamps={"helm.sh/helm/v3/internal/version.version": "v3.22.0"},
        ),
        # The one whose source stands beside its go.mod.
        Recipe(name="pause", module="plan2/tests/tools/pause", programs={"pause": "."}),
        # The peer of `make bench`.
        Recipe(
            name="daprd",
            module="github.com/dapr/dapr",
            programs={"daprd": "github.com/dapr/dapr/cmd/daprd"},
            tags="stablecomponents",
            on_demand=True,
        ),
        Recipe(
            name="kind",
            module="sigs.k8s.io/kind",
            programs={"kind": "sigs.k8s.io/kind"},
            on_demand=True,
        ),
    )
}
