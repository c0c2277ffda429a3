"""Who gets a sidecar, and what exactly changes in the pod: a pod in, JSON Patch out."""

import json
from typing import Any

import pytest

from fixtures.pods import SETTINGS, applied, inject, mounts, pod, sidecar_of, variables
from plan2_contract import environment, names
from plan2_contract.engines import Engine
from plan2_operator.injector import sidecar
from plan2_operator.injector.patch import Injection, Skip, Skipped
from plan2_operator.injector.settings import SYSTEM_NAMESPACES, Settings
from plan2_operator.injector.sidecar import Options


def test_the_sidecar_is_a_native_one_and_comes_first() -> None:
    waits = {"name": "migrate", "image": "shop:1"}

    result = applied(pod(initContainers=[waits]))

    listed = [container["name"] for container in result["spec"]["initContainers"]]
    assert listed == [names.SIDECAR_CONTAINER, "migrate"]
    assert sidecar_of(result)["restartPolicy"] == "Always"


def test_its_startup_waits_for_the_listener_only() -> None:
    result = sidecar_of(applied(pod()))

    assert result["startupProbe"]["httpGet"] == {"path": "/livez", "port": 7421}
    assert "readinessProbe" not in result


def test_required_engines_make_it_count_for_readiness() -> None:
    options = Options(required_engines=(Engine.POSTGRESQL, Engine.MONGODB))

    result = sidecar_of(applied(pod(), options=options))

    assert result["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 7421}
    assert variables(result)[environment.REQUIRED_ENGINES] == "postgresql,mongodb"


def test_the_sidecar_is_told_where_everything_is() -> None:
    assert variables(sidecar_of(applied(pod()))) == {
        "PLAN2_HOST": "127.0.0.1",
        "PLAN2_PORT": "7420",
        "PLAN2_SOCKET": "/run/plan2/api.sock",
        "PLAN2_METRICS_HOST": "0.0.0.0",
        "PLAN2_METRICS_PORT": "7421",
        "PLAN2_CONNECTION_FILE": "/etc/plan2/connection/connection.json",
        "PLAN2_API_TOKEN_FILE": "/etc/plan2/token/token",
        "PLAN2_REQUIRED_ENGINES": "",
        "PLAN2_V1": "token",
        "PLAN2_SERVICE_ACCOUNT": {
            "fieldRef": {"apiVersion": "v1", "fieldPath": "spec.serviceAccountName"}
        },
    }


def test_the_app_gets_the_address_and_the_token_and_nothing_secret_else() -> None:
    app = applied(pod())["spec"]["containers"][0]

    assert variables(app) == {
        "PLAN2_URL": "http://127.0.0.1:7420",
        "PLAN2_SOCKET": "/run/plan2/api.sock",
        "PLAN2_API_TOKEN_FILE": "/etc/plan2/token/token",
    }
    assert mounts(app) == {"/run/plan2": "plan2-run", "/etc/plan2/token": "plan2-token"}


def test_init_containers_that_run_after_the_sidecar_may_call_it_too() -> None:
    given = pod(initContainers=[{"name": "migrate", "image": "shop:1"}])

    migrate = applied(given)["spec"]["initContainers"][1]

    assert variables(migrate)["PLAN2_URL"] == "http://127.0.0.1:7420"
    assert "/etc/plan2/token" in mounts(migrate)


def test_only_the_sidecar_sees_the_connections() -> None:
    result = applied(pod())

    assert "/etc/plan2/connection" in mounts(sidecar_of(result))
    assert "/etc/plan2/connection" not in mounts(result["spec"]["containers"][0])


def test_a_pod_may_come_before_its_resource() -> None:
    volumes = {volume["name"]: volume for volume in applied(pod())["spec"]["volumes"]}

    assert volumes["plan2-connection"]["secret"] == {
        "secretName": "aitrading-connection",
        "optional": True,
    }
    assert volumes["plan2-token"]["secret"] == {
        "secretName": "aitrading-api-token",
        "optional": True,
    }


def test_every_mount_has_its_volume() -> None:
    result = applied(pod(initContainers=[{"name": "migrate", "image": "shop:1"}]))["spec"]

    volumes = {volume["name"] for volume in result["volumes"]}
    containers = result["containers"] + result["initContainers"]
    assert {name for one in containers for name in mounts(one).values()} == volumes


def test_the_sidecar_has_no_account_token_of_the_pod() -> None:
    held = mounts(sidecar_of(applied(pod())))

    assert held["/var/run/secrets/kubernetes.io/serviceaccount"] == "plan2-no-account"


def test_what_the_user_wrote_stays() -> None:
    app = {
        "name": "app",
        "image": "shop:1",
        "env": [{"name": "PLAN2_URL", "value": "http://127.0.0.1:9"}, {"name": "A", "value": "1"}],
        "volumeMounts": [{"name": "mine", "mountPath": "/run/plan2"}],
    }
    given = pod(containers=[app], volumes=[{"name": "mine", "emptyDir": {}}])

    result = applied(given)["spec"]

    changed = result["containers"][0]
    assert changed["env"][-2:] == app["env"]
    assert variables(changed)["PLAN2_URL"] == "http://127.0.0.1:9"
    assert mounts(changed)["/run/plan2"] == "mine"
    assert result["volumes"][0] == {"name": "mine", "emptyDir": {}}


def test_nothing_else_of_the_pod_changes() -> None:
    given = pod(annotations={"a": "1"}, nodeName="n", volumes=[{"name": "v", "emptyDir": {}}])

    result = applied(given)

    assert result["metadata"]["labels"] == given["metadata"]["labels"]
    assert set(result["metadata"]["annotations"]) == {"a", names.ANNOTATION_INJECTED}
    assert {key: result["spec"][key] for key in ("nodeName",)} == {"nodeName": "n"}
    assert set(result["spec"]) == set(given["spec"]) | {"initContainers"}


def test_a_second_admission_changes_nothing() -> None:
    once = applied(pod())

    assert inject(once) == Skipped(Skip.ALREADY_INJECTED)


def test_the_annotation_alone_is_no_proof_of_a_sidecar() -> None:
    given = pod(annotations={names.ANNOTATION_INJECTED: "copied"})

    assert sidecar_of(applied(given))


def test_a_pod_without_the_label_is_left_alone() -> None:
    assert inject(pod(labels={"app": "shop"})) == Skipped(Skip.NOT_LABELLED)


@pytest.mark.parametrize("namespace", [*sorted(SYSTEM_NAMESPACES), "plan2-system"])
def test_system_namespaces_and_the_releases_own_are_left_alone(namespace: str) -> None:
    result = inject(pod(), namespace=namespace)

    assert isinstance(result, Skipped)
    assert result.reason == Skip.EXCLUDED_NAMESPACE
    assert namespace in (result.message or "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"hostNetwork": True}, Skip.HOST_NETWORK, id="host network"),
        pytest.param({"os": {"name": "windows"}}, Skip.WINDOWS, id="windows"),
        pytest.param(
            {"annotations": {"kubernetes.io/config.mirror": "x"}}, Skip.MIRROR_POD, id="static pod"
        ),
        pytest.param(
            {"labels": {names.LABEL_INJECT: "Not_A_Name"}}, Skip.INVALID_NAME, id="not a name"
        ),
        pytest.param({"labels": {names.LABEL_INJECT: "a" * 39}}, Skip.INVALID_NAME, id="too long"),
        pytest.param(
            {"containers": [{"name": "app", "ports": [{"containerPort": 7420}]}]},
            Skip.PORT_CLASH,
            id="the API's port",
        ),
        pytest.param(
            {"initContainers": [{"name": "proxy", "ports": [{"containerPort": 7421}]}]},
            Skip.PORT_CLASH,
            id="the probes' port",
        ),
        pytest.param(
            {"annotations": {names.ANNOTATION_PORT: "7421"}}, Skip.PORT_CLASH, id="its own port"
        ),
    ],
)
def test_a_pod_that_cannot_have_one_is_left_alone_with_a_reason(
    changes: dict[str, Any], reason: Skip
) -> None:
    result = inject(pod(**changes))

    assert isinstance(result, Skipped)
    assert result.reason == reason
    assert result.message


def test_a_udp_port_of_the_same_number_is_no_clash() -> None:
    port = {"containerPort": 7420, "protocol": "UDP"}

    assert sidecar_of(applied(pod(containers=[{"name": "app", "ports": [port]}])))


def test_with_watched_namespaces_the_others_are_left_alone() -> None:
    settings = Settings(namespace="s", sidecar_image="i", watch_namespaces=("trading",))

    assert sidecar_of(applied(pod(), settings=settings))
    result = inject(pod(), namespace="elsewhere", settings=settings)
    assert isinstance(result, Skipped)
    assert result.reason == Skip.NAMESPACE_NOT_WATCHED


def test_the_port_moves_for_callers_written_before() -> None:
    result = applied(pod(annotations={names.ANNOTATION_PORT: "3000", names.ANNOTATION_V1: "open"}))

    assert variables(result["spec"]["containers"][0])["PLAN2_URL"] == "http://127.0.0.1:3000"
    own = variables(sidecar_of(result))
    assert (own["PLAN2_PORT"], own["PLAN2_V1"]) == ("3000", "open")


def test_the_classic_environment_is_there_when_asked_for() -> None:
    given = pod(annotations={names.ANNOTATION_ENV: "true"})

    found = variables(applied(given)["spec"]["containers"][0])

    wanted = {name for keys in environment.CLASSIC.values() for name in keys}
    assert wanted <= set(found)
    assert found["POSTGRES_PASSWORD"] == {
        "secretKeyRef": {"name": "aitrading-postgresql-app", "key": "password", "optional": True}
    }


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (names.ANNOTATION_PORT, "many"),
        (names.ANNOTATION_PORT, "70000"),
        (names.ANNOTATION_PORT, "-1"),
        (names.ANNOTATION_V1, "closed"),
        (names.ANNOTATION_SIDECAR_RESOURCES, "{"),
        (names.ANNOTATION_SIDECAR_RESOURCES, "[]"),
        (names.ANNOTATION_SIDECAR_RESOURCES, '{"limits": {"memory": "lots"}}'),
        (names.ANNOTATION_SIDECAR_RESOURCES, '{"limits": {"gpu": 1}}'),
        (names.ANNOTATION_SIDECAR_RESOURCES, '{"requests": {"memory": "1Gi"}}'),
    ],
)
def test_a_bad_annotation_is_a_warning_and_the_default_holds(annotation: str, value: str) -> None:
    given = pod(annotations={annotation: value})

    result = inject(given)

    assert isinstance(result, Injection)
    assert len(result.warnings) == 1
    assert annotation in result.warnings[0]
    assert sidecar_of(applied(given)) == sidecar_of(applied(pod()))


def test_resources_come_from_the_defaults_the_resource_and_the_pod_in_that_order() -> None:
    options = Options(resources={"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m"}})
    annotation = json.dumps({"requests": {"memory": "128Mi"}})
    given = pod(annotations={names.ANNOTATION_SIDECAR_RESOURCES: annotation})

    assert sidecar_of(applied(pod()))["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "192Mi"},
    }
    assert sidecar_of(applied(given, options=options))["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"memory": "256Mi"},
    }


def test_a_limit_below_the_default_request_lowers_the_request() -> None:
    annotation = json.dumps({"limits": {"memory": "48Mi"}})
    given = pod(annotations={names.ANNOTATION_SIDECAR_RESOURCES: annotation})

    assert sidecar_of(applied(given))["resources"]["requests"]["memory"] == "48Mi"


def test_the_stamp_changes_with_the_sidecar_and_with_nothing_else() -> None:
    def stamp(given: dict[str, Any], **arguments: Any) -> str:
        annotations = applied(given, **arguments)["metadata"]["annotations"]
        return str(annotations[names.ANNOTATION_INJECTED])

    assert stamp(pod()) == stamp(pod(nodeName="n"))
    assert stamp(pod()) == sidecar.fingerprint(SETTINGS, None)
    assert stamp(pod()) != stamp(pod(), options=Options(image="plan2/sidecar:2"))


def test_the_resource_says_which_image_runs() -> None:
    options = sidecar.options({"spec": {"sidecar": {"image": "mirror/sidecar:2"}}})

    assert sidecar_of(applied(pod(), options=options))["image"] == "mirror/sidecar:2"
    assert sidecar_of(applied(pod()))["image"] == "plan2/sidecar:1"


def test_the_resource_says_what_the_caches_may_keep() -> None:
    options = sidecar.options({"spec": {"sidecar": {"cache": {"maxBytes": 0}}}})

    variables = {item["name"]: item for item in sidecar_of(applied(pod(), options=options))["env"]}
    usual = {item["name"] for item in sidecar_of(applied(pod()))["env"]}
    assert variables["PLAN2_CACHE_MAX_BYTES"]["value"] == "0"
    assert "PLAN2_CACHE_MAX_BYTES" not in usual


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"sidecar": None},
        {"sidecar": {"cache": {"maxBytes": True}}},
        {"sidecar": {"image": 3, "requiredEngines": "all", "limits": [], "resources": "much"}},
        {"sidecar": {"requiredEngines": ["oracle"], "limits": {"maxBodyBytes": 1}}},
        {"sidecar": {"resources": {"requests": {"memory": "1Ti"}}}},
    ],
)
def test_what_a_resource_says_wrongly_is_left_out(spec: Any) -> None:
    assert sidecar.options({"spec": spec}) == Options()


def test_the_sidecar_is_admitted_by_pod_security_restricted() -> None:
    context = sidecar_of(applied(pod()))["securityContext"]

    assert context == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
