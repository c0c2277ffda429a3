"""The chart: what it renders, what it refuses, and that an API server takes all of it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.fix_helm import CHART, ROOT, Helm, Kubectl

RENDERINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "watchNamespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "certManager": {"certManager": {"enabled": True}},
    "certManager with an issuer": {
        "certManager": {"enabled": True, "issuerRef": {"name": "ours", "kind": "ClusterIssuer"}}
    },
    "monitoring": {
        "monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    },
    "no injector": {"injector": {"enabled": False}},
    "everything said": {
        "fullnameOverride": "databases",
        "imagePullSecrets": [{"name": "registry"}],
        "operator": {
            "image": {"repository": "mirror/operator", "tag": "2", "pullPolicy": "Always"},
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": {"a": "b"},
        },
        "injector": {
            "replicas": 3,
            "failurePolicy": "Fail",
            "excludedNamespaces": ["secret-place"],
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": {"a": "b"},
        },
        "images": {"postgresql": "mirror/postgres:17"},
        "imagePullPolicy": "IfNotPresent",
    },
}

rendered = pytest.mark.parametrize("values", RENDERINGS.values(), ids=RENDERINGS.keys())


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    found = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, (kind, name)
    return found[0]


def roles(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for one in objects:
        if one["kind"] in ("Role", "ClusterRole"):
            yield from ((one, rule) for rule in one["rules"])


def environment(objects: list[dict[str, Any]], deployment: str) -> dict[str, Any]:
    spec = named(objects, "Deployment", deployment)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


def test_lint_finds_nothing(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


def test_the_chart_carries_the_resource_definition_as_it_stands() -> None:
    carried = (CHART / "files" / "plan2databases.yaml").read_text()

    assert carried == (ROOT / "crds" / "plan2databases.yaml").read_text(), (
        "cp crds/plan2databases.yaml helm/plan2/files/"
    )


def test_the_resource_definition_outlives_the_release(helm: Helm) -> None:
    definition = named(helm.objects(), "CustomResourceDefinition", "plan2databases.plan2.io")

    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    without = helm.objects({"crds": {"install": False}})
    assert "CustomResourceDefinition" not in {one["kind"] for one in without}


@rendered
def test_no_right_is_a_wildcard(helm: Helm, values: dict[str, Any]) -> None:
    for role, rule in roles(helm.objects(values)):
        said = rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert "*" not in said, (role["metadata"]["name"], rule)


@rendered
def test_secrets_are_never_listed_or_watched(helm: Helm, values: dict[str, Any]) -> None:
    for role, rule in roles(helm.objects(values)):
        if "secrets" in rule["resources"]:
            forbidden = {"list", "watch", "deletecollection"} & set(rule["verbs"])
            assert not forbidden, (role["metadata"]["name"], rule)


def test_watched_namespaces_take_the_place_of_rights_over_the_cluster(helm: Helm) -> None:
    objects = helm.objects({"watchNamespaces": ["team-a", "team-b"]})

    over_the_cluster = [one for one in objects if one["kind"] == "ClusterRole"]
    assert [one["metadata"]["name"] for one in over_the_cluster] == ["plan2-injector-webhook"]
    (rule,) = over_the_cluster[0]["rules"]
    assert rule["resourceNames"] == ["plan2-injector"]
    for kind in ("Role", "RoleBinding"):
        places = {
            one["metadata"]["namespace"]
            for one in objects
            if one["kind"] == kind and one["metadata"]["name"] == "plan2-operator"
        }
        assert places == {"team-a", "team-b"}
    assert environment(objects, "plan2-operator")["PLAN2_WATCH_NAMESPACES"] == "team-a,team-b"
    assert environment(objects, "plan2-injector")["PLAN2_WATCH_NAMESPACES"] == "team-a,team-b"


def test_every_binding_names_a_role_and_an_account_that_are_there(helm: Helm) -> None:
    for values in RENDERINGS.values():
        objects = helm.objects(values)
        there = {
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
            for one in objects
        }
        for binding in objects:
            if not binding["kind"].endswith("Binding"):
                continue
            namespace, role = binding["metadata"].get("namespace"), binding["roleRef"]
            assert (role["kind"], namespace, role["name"]) in there
            for subject in binding["subjects"]:
                assert (subject["kind"], subject["namespace"], subject["name"]) in there


@rendered
def test_pods_are_restricted_and_can_be_watched_over(helm: Helm, values: dict[str, Any]) -> None:
    deployments = [one for one in helm.objects(values) if one["kind"] == "Deployment"]
    assert deployments
    for deployment in deployments:
        spec = deployment["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
            assert not container["image"].endswith(":latest")


def test_the_operator_runs_once_and_the_injector_twice(helm: Helm) -> None:
    objects = helm.objects()

    operator = named(objects, "Deployment", "plan2-operator")["spec"]
    injector = named(objects, "Deployment", "plan2-injector")["spec"]
    assert (operator["replicas"], operator["strategy"]) == (1, {"type": "Recreate"})
    assert injector["replicas"] == 2
    assert injector["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert named(objects, "PodDisruptionBudget", "plan2-injector")["spec"]["maxUnavailable"] == 1


def test_the_webhook_sees_labelled_pods_outside_the_system_only(helm: Helm) -> None:
    configuration = named(helm.objects(), "MutatingWebhookConfiguration", "plan2-injector")

    (webhook,) = configuration["webhooks"]
    assert webhook["objectSelector"] == {
        "matchExpressions": [{"key": "plan2.io/inject", "operator": "Exists"}]
    }
    (namespaces,) = webhook["namespaceSelector"]["matchExpressions"]
    assert namespaces["operator"] == "NotIn"
    assert set(namespaces["values"]) == {
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "local-path-storage",
        "plan2-system",
    }
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Ignore", 5)
    assert (webhook["sideEffects"], webhook["reinvocationPolicy"]) == ("None", "Never")
    assert "caBundle" not in webhook["clientConfig"]


def test_operator_and_injector_are_told_of_the_same_sidecar(helm: Helm) -> None:
    values = {"sidecar": {"image": {"repository": "mirror/sidecar", "tag": "2"}}}
    objects = helm.objects(values)

    told = [environment(objects, name) for name in ("plan2-operator", "plan2-injector")]

    shared = ("PLAN2_SIDECAR_IMAGE", "PLAN2_SIDECAR_IMAGE_PULL_POLICY")
    assert [[one[name] for name in shared] for one in told] == [
        ["mirror/sidecar:2", "IfNotPresent"]
    ] * 2


def test_operator_and_injector_are_told_of_the_same_namespaces_to_leave_alone(
    helm: Helm,
) -> None:
    objects = helm.objects({"injector": {"excludedNamespaces": ["secret-place", "other"]}})

    for name in ("plan2-operator", "plan2-injector"):
        told = environment(objects, name)["PLAN2_INJECTOR_EXCLUDED_NAMESPACES"]
        assert told == "secret-place,other"


@pytest.fixture
def chart_with_notes(helm: Helm, tmp_path: Path) -> Helm:
    """The chart with its notes among the objects: helm shows notes only where a cluster is."""
    chart = shutil.copytree(CHART, tmp_path / "plan2")
    (chart / "templates" / "NOTES.txt").rename(chart / "files" / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text(
        "kind: Notes\nmetadata: {name: notes}\n"
        'said: {{ tpl (.Files.Get "files/NOTES.txt") . | quote }}\n'
    )
    return replace(helm, chart=chart)


@pytest.mark.parametrize(
    ("release", "watched"),
    [("plan2-system", []), ("default", []), ("team-a", ["team-a", "team-b"]), ("a", ["team-a"])],
)
def test_the_notes_send_nobody_to_the_namespace_that_is_never_injected(
    chart_with_notes: Helm, release: str, watched: list[str]
) -> None:
    chart = replace(chart_with_notes, namespace=release)

    said: str = named(chart.objects({"watchNamespaces": watched}), "Notes", "notes")["said"]

    assert f"namespace: {release}\n" not in said
    assert f"never in {release}" in said
    assert "<no value>" not in said


def test_images_of_the_engines_reach_the_operator(helm: Helm) -> None:
    values = {"images": {"postgresql": "mirror/postgres:17"}, "imagePullPolicy": "Never"}

    told = environment(helm.objects(values), "plan2-operator")

    assert told["PLAN2_IMAGE_POSTGRESQL"] == "mirror/postgres:17"
    assert told["PLAN2_IMAGE_PULL_POLICY"] == "Never"
    assert "PLAN2_IMAGE_MONGODB" not in told


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"unknown": 1}, "unknown"),
        ({"fullnameOverride": "Plan_2"}, "fullnameOverride"),
        ({"watchNamespaces": "team-a"}, "watchNamespaces"),
        ({"watchNamespaces": ["Team_A"]}, "watchNamespaces"),
        ({"injector": {"replicas": 0}}, "replicas"),
        ({"injector": {"replicas": "2"}}, "replicas"),
        ({"injector": {"failurePolicy": "Maybe"}}, "failurePolicy"),
        ({"injector": {"timeoutSeconds": 31}}, "timeoutSeconds"),
        ({"operator": {"image": {"tag": "latest"}}}, "tag"),
        ({"operator": {"image": {"repository": ""}}}, "repository"),
        ({"sidecar": {"image": {"pullPolicy": "Sometimes"}}}, "pullPolicy"),
        ({"images": {"oracle": "oracle:23"}}, "images"),
        ({"monitoring": {"serviceMonitor": {"interval": "often"}}}, "interval"),
    ],
)
def test_a_wrong_value_is_refused_and_named(helm: Helm, values: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        helm.template(values)


def test_every_value_is_documented() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()

    for number, line in enumerate(lines):
        if line and not line.startswith((" ", "#")) and not line.endswith(":"):
            assert lines[number - 1].startswith("#"), line


@pytest.fixture(scope="module")
def prepared(kubectl: Kubectl) -> Kubectl:
    """The namespaces and foreign kinds that the renderings speak of."""
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in ("plan2-system", "team-a", "team-b")
    ]
    objects += [
        foreign("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
        foreign("cert-manager.io", "Certificate", "certificates"),
        foreign("cert-manager.io", "Issuer", "issuers"),
    ]
    definitions = yaml.safe_dump_all(objects)
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=definitions)
    kubectl.wait_for_definitions()
    return kubectl


def foreign(group: str, kind: str, plural: str) -> dict[str, Any]:
    """A kind that another operator brings, taken as anything goes."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
            }
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }


@pytest.mark.cluster
@rendered
def test_an_api_server_takes_every_rendering(
    helm: Helm, prepared: Kubectl, values: dict[str, Any]
) -> None:
    text = helm.template(values)

    applied = prepared(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--force-conflicts",  # other tests of the session leave the chart's roles as they need them
        "--validate=strict",
        "--filename=-",
        "--output=name",
        stdin=text,
    )

    assert len(applied.splitlines()) == len(helm.objects(values))


@pytest.mark.cluster
def test_the_rights_are_those_needed_and_no_more(helm: Helm, prepared: Kubectl) -> None:
    kinds = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount")
    wanted = (*kinds, "CustomResourceDefinition")
    objects = yaml.safe_dump_all(one for one in helm.objects() if one["kind"] in wanted)
    prepared("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=objects)
    prepared.wait_for_definitions()

    def may(account: str, verb: str, what: str, namespace: str = "team-a") -> bool:
        said = prepared.run(
            "auth",
            "can-i",
            verb,
            what,
            f"--namespace={namespace}",
            f"--as=system:serviceaccount:plan2-system:{account}",
            check=False,
        )
        return said.stdout.strip() == "yes"

    assert may("plan2-operator", "get", "secrets/aitrading-postgresql-admin")
    assert may("plan2-operator", "create", "secrets")
    assert may("plan2-operator", "patch", "statefulsets.apps")
    assert not may("plan2-operator", "list", "secrets")
    assert not may("plan2-operator", "watch", "secrets")
    assert not may("plan2-operator", "delete", "secrets")
    assert not may("plan2-operator", "delete", "persistentvolumeclaims")
    assert not may("plan2-operator", "delete", "pods")
    assert not may("plan2-operator", "get", "nodes")
    assert may("plan2-injector", "watch", "plan2databases.plan2.io")
    assert may("plan2-injector", "get", "secrets/plan2-injector-ca", "plan2-system")
    assert not may("plan2-injector", "get", "secrets/other", "plan2-system")
    assert not may("plan2-injector", "get", "secrets/aitrading-connection")
    assert not may("plan2-injector", "create", "secrets")
    webhooks = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
    assert may("plan2-injector", "patch", f"{webhooks}/plan2-injector")
    assert not may("plan2-injector", "patch", f"{webhooks}/other")


@pytest.mark.cluster
def test_its_pods_are_admitted_where_pod_security_is_restricted(
    helm: Helm, prepared: Kubectl
) -> None:
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "restricted",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    prepared("apply", "--server-side", "--filename=-", stdin=json.dumps(namespace))

    for deployment in helm.objects():
        if deployment["kind"] != "Deployment":
            continue
        template = deployment["spec"]["template"]
        name = deployment["metadata"]["name"]
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": "restricted"},
        }
        prepared("apply", "--server-side", "--filename=-", stdin=json.dumps(account))
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": name, "namespace": "restricted"},
            "spec": template["spec"],
        }
        prepared("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
