"""The operator's process with the rights that the chart gives it, and no others."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane
from fixtures import operator_lab
from fixtures.fix_helm import Helm
from fixtures.operator_lab import Lab, operator
from plan2_contract import names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.cluster import Cluster, Conflict, Manifest

pytestmark = pytest.mark.cluster

ONLY: dict[str, Any] = {
    engine.value: {"enabled": False} for engine in SIX if engine is not Engine.POSTGRESQL
}
ACCOUNT = "plan2-operator"
RBAC = "rbac.authorization.k8s.io"
PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}


async def install(cluster: Cluster, chart: list[Manifest], namespace: str) -> None:
    """The chart's account of the operator with its roles."""
    await post(cluster, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    for made in chart:
        if made["kind"] not in PLURALS or made["metadata"]["name"] != ACCOUNT:
            continue
        prefix = "/api/v1" if made["kind"] == "ServiceAccount" else f"/apis/{RBAC}/v1"
        within = made["metadata"].get("namespace")
        where = f"/namespaces/{within}" if within else ""
        await post(cluster, f"{prefix}{where}/{PLURALS[made['kind']]}", made)


async def post(cluster: Cluster, path: str, body: Manifest) -> None:
    try:
        await cluster._request("post", path, body=body)
    except Conflict:
        return


async def as_the_operator(plane: ControlPlane, cluster: Cluster, namespace: str) -> dict[str, Any]:
    """A kubeconfig whose user is the operator's account."""
    answer = await cluster._request(
        "post",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token",
        body={"spec": {"expirationSeconds": 3600}},
    )
    admin = yaml.safe_load(plane.kubeconfig.read_text())
    configured: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "operator",
        "clusters": [{"name": "it", "cluster": inlined(admin["clusters"][0]["cluster"], plane)}],
        "users": [{"name": ACCOUNT, "user": {"token": answer["status"]["token"]}}],
        "contexts": [{"name": "operator", "context": {"cluster": "it", "user": ACCOUNT}}],
    }
    return configured


def inlined(cluster: dict[str, Any], plane: ControlPlane) -> dict[str, Any]:
    """The authority's certificate in place of its path, which is relative to the kubeconfig."""
    path = cluster.get("certificate-authority")
    if path is None:
        return cluster
    data = (plane.kubeconfig.parent / path).read_bytes()
    encoded = base64.b64encode(data).decode()
    return {"server": cluster["server"], "certificate-authority-data": encoded}


@pytest.mark.parametrize("narrow", [False, True], ids=["cluster-wide", "one namespace"])
async def test_the_charts_rights_suffice(
    api: Cluster,
    lab: Lab,
    control_plane: ControlPlane,
    helm: Helm,
    tmp_path: Path,
    narrow: bool,
) -> None:
    release = await operator_lab.fresh_namespace(api)
    watched = [lab.namespace] if narrow else []
    chart = Helm(helm.program, namespace=release).objects({"watchNamespaces": watched})
    await install(api, chart, release)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(await as_the_operator(control_plane, api, release)))
    key = await lab.create("prices", {**ONLY, "deletionPolicy": "Delete"})
    await lab.pod("without", labels={names.LABEL_INJECT: "prices"})

    async with operator(kubeconfig, PLAN2_WATCH_NAMESPACES=",".join(watched)):

        async def told() -> bool:
            return bool(await lab.status(key)) and await lab.events("without") != []

        await operator_lab.until(told, seconds=60)
        live = await lab.read(kinds.SERVICE, "prices-postgresql")
        await lab.cluster.delete(kinds.SERVICE, live)

        async def back() -> bool:
            return ("Service", "prices-postgresql") in await lab.owned(key)

        await operator_lab.until(back, seconds=40)
        await lab.change(key, {"networkPolicy": {"mode": "off"}})

        async def pruned() -> bool:
            return ("NetworkPolicy", "prices-postgresql") not in await lab.owned(key)

        await operator_lab.until(pruned, seconds=40)
        await asyncio.sleep(0.5)

    status = await lab.status(key)
    assert "forbidden" not in str(status).lower()
    assert status["engines"]["postgresql"]["phase"] == "Pending"
    assert not narrow or [made["kind"] for made in chart if is_clusterwide(made)] == []


def is_clusterwide(made: Manifest) -> bool:
    return bool(made["kind"] == "ClusterRole" and made["metadata"]["name"] == ACCOUNT)
