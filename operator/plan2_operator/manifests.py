"""The Kubernetes objects every engine is made of, built from what makes an engine particular.

An engine's module describes its pod in a `Pod`; `workload` makes all its objects from it. The
same input gives the same objects, whatever the operator's version: an operator upgrade alone
restarts nothing.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from plan2_contract import names
from plan2_operator.catalog import ENGINES
from plan2_operator.model import EngineSpec, Manifest, Platform

ADMIN_DIRECTORY: Final = "/etc/plan2/admin"
CONFIG_DIRECTORY: Final = "/etc/plan2/config"
ANNOTATION_CONFIG: Final = "plan2.io/config-hash"
ANNOTATION_CREDENTIALS: Final = "plan2.io/credentials-hash"
METRICS: Final = "metrics"
REVISIONS: Final = 3

Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Port:
    """A container port; `private` ones are for the kubelet alone."""

    name: str
    number: int
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What sets one engine's pod apart. `config` becomes the ConfigMap, file name to text."""

    ports: Sequence[Port]
    data_path: str
    startup: Fields
    readiness: Fields
    liveness: Fields
    grace_seconds: int
    args: Sequence[str] = ()
    env: Sequence[Fields] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Fields] = ()
    volumes: Sequence[Fields] = ()
    init: Sequence[Fields] = ()
    mount_admin: bool = True


def workload(platform: Platform, spec: EngineSpec, pod: Pod) -> list[Manifest]:
    """All objects of a managed engine, in the order to apply them."""
    objects = [
        headless_service(platform, spec, pod.ports),
        client_service(platform, spec, pod.ports),
        disruption_budget(platform, spec),
        stateful_set(platform, spec, pod),
    ]
    if platform.network_policy.mode != "off":
        objects.insert(0, network_policy(platform, spec, pod.ports))
    if pod.config:
        objects.insert(0, config_map(platform, spec, pod.config))
    return objects


def config_map(platform: Platform, spec: EngineSpec, data: Mapping[str, str]) -> Manifest:
    name = names.engine_object(spec.cr, spec.engine)
    return _object("v1", "ConfigMap", platform, spec, name) | {"data": dict(data)}


def headless_service(platform: Platform, spec: EngineSpec, ports: Sequence[Port]) -> Manifest:
    """Gives the pod its own name, before it is ready too: that is when it is provisioned."""
    name = names.headless_service(spec.cr, spec.engine)
    return _object("v1", "Service", platform, spec, name) | {
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(spec.cr, spec.engine),
            "ports": [_service_port(ports[0])],
        }
    }


def client_service(platform: Platform, spec: EngineSpec, ports: Sequence[Port]) -> Manifest:
    name = names.engine_object(spec.cr, spec.engine)
    return _object("v1", "Service", platform, spec, name) | {
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(spec.cr, spec.engine),
            "ports": [_service_port(port) for port in ports if not port.private],
        }
    }


def disruption_budget(platform: Platform, spec: EngineSpec) -> Manifest:
    """One pod may go: a drain is never blocked, two engines' pods are never one budget."""
    name = names.engine_object(spec.cr, spec.engine)
    return _object("policy/v1", "PodDisruptionBudget", platform, spec, name) | {
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(spec.cr, spec.engine)},
        }
    }


def network_policy(platform: Platform, spec: EngineSpec, ports: Sequence[Port]) -> Manifest:
    """Who may connect: the resource's namespace or its labelled pods, the operator, `from`."""
    apps = (
        {"matchLabels": {names.LABEL_INJECT: spec.cr}}
        if platform.network_policy.mode == "labelled"
        else {}
    )
    operator = {"matchLabels": {"kubernetes.io/metadata.name": platform.operator_namespace}}
    peers = [{"podSelector": apps}, {"namespaceSelector": operator}]
    peers += [dict(peer) for peer in platform.network_policy.allow_from]
    name = names.engine_object(spec.cr, spec.engine)
    return _object("networking.k8s.io/v1", "NetworkPolicy", platform, spec, name) | {
        "spec": {
            "podSelector": {"matchLabels": names.selector(spec.cr, spec.engine)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": peers,
                    "ports": [
                        {"protocol": "TCP", "port": port.number}
                        for port in ports
                        if not port.private
                    ],
                }
            ],
        }
    }


def stateful_set(platform: Platform, spec: EngineSpec, pod: Pod) -> Manifest:
    name = names.engine_object(spec.cr, spec.engine)
    selector = names.selector(spec.cr, spec.engine)
    return _object("apps/v1", "StatefulSet", platform, spec, name) | {
        "spec": {
            "replicas": 0 if platform.hibernate else 1,
            "serviceName": names.headless_service(spec.cr, spec.engine),
            "selector": {"matchLabels": selector},
            # OrderedReady never replaces a pod that a bad template keeps from getting ready.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "revisionHistoryLimit": REVISIONS,
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": platform.deletion_policy,
                "whenScaled": "Retain",
            },
            "template": {
                "metadata": _template_metadata(spec, pod),
                "spec": _pod_spec(spec, pod),
            },
            "volumeClaimTemplates": [_claim(spec)],
        }
    }


def with_credentials(stateful_set: Manifest, digest: str) -> Manifest:
    """The StatefulSet with a pod that is replaced when `digest` changes."""
    made = copy.deepcopy(stateful_set)
    meta = made["spec"]["template"]["metadata"]
    meta["annotations"] = {**meta.get("annotations", {}), ANNOTATION_CREDENTIALS: digest}
    return made


def service_monitor(platform: Platform) -> Manifest:
    """One for all engines that serve metrics themselves, by the name of their port."""
    labels = {names.LABEL_INSTANCE: platform.name, names.LABEL_PART_OF: names.PART_OF}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _metadata(platform, platform.name, names.shared_labels(platform.name)),
        "spec": {
            "selector": {"matchLabels": labels},
            "endpoints": [{"port": METRICS, "path": "/metrics"}],
        },
    }


def prometheus_rule(platform: Platform, rules: Sequence[Fields]) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _metadata(platform, platform.name, names.shared_labels(platform.name)),
        "spec": {
            "groups": [
                {
                    "name": f"{platform.namespace}.{platform.name}",
                    "rules": [dict(rule) for rule in rules],
                }
            ]
        },
    }


def http_probe(path: str, port: int, **timing: int) -> Fields:
    return {"httpGet": {"path": path, "port": port}, **timing}


def tcp_probe(port: int, **timing: int) -> Fields:
    return {"tcpSocket": {"port": port}, **timing}


def exec_probe(*command: str, **timing: int) -> Fields:
    return {"exec": {"command": list(command)}, **timing}


def variable(name: str, value: str) -> Fields:
    return {"name": name, "value": value}


def admin_variable(spec: EngineSpec, name: str, key: str) -> Fields:
    """An environment variable out of the engine's admin Secret."""
    secret = names.admin_secret(spec.cr, spec.engine)
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def scratch(name: str, *, memory_bytes: int | None = None) -> Fields:
    """A directory that goes with the pod; in memory and bounded when a size is given."""
    if memory_bytes is None:
        return {"name": name, "emptyDir": {}}
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": str(memory_bytes)}}


def mount(name: str, path: str, *, sub_path: str | None = None, read_only: bool = False) -> Fields:
    made: dict[str, Any] = {"name": name, "mountPath": path}
    if sub_path is not None:
        made["subPath"] = sub_path
    if read_only:
        made["readOnly"] = True
    return made


def container_security() -> Fields:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _object(
    api_version: str, kind: str, platform: Platform, spec: EngineSpec, name: str
) -> Manifest:
    labels = names.labels(spec.cr, spec.engine)
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": _metadata(platform, name, labels),
    }


def _metadata(platform: Platform, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": platform.namespace,
        "labels": dict(labels),
        "ownerReferences": [platform.owner_reference],
    }


def _service_port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "protocol": "TCP",
        "port": port.number,
        "targetPort": port.number,
    }


def _template_metadata(spec: EngineSpec, pod: Pod) -> dict[str, Any]:
    made: dict[str, Any] = {"labels": names.labels(spec.cr, spec.engine)}
    if pod.config:
        made["annotations"] = {ANNOTATION_CONFIG: _digest(pod.config)}
    return made


def _pod_spec(spec: EngineSpec, pod: Pod) -> dict[str, Any]:
    uid = ENGINES[spec.engine].uid
    made: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": uid,
            "fsGroup": uid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, pod)],
        "volumes": _volumes(spec, pod),
    }
    if pod.init:
        made["initContainers"] = [dict(container) for container in pod.init]
    if spec.image_pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in spec.image_pull_secrets]
    return made | dict(spec.scheduling.fields)


def _container(spec: EngineSpec, pod: Pod) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": spec.engine.value,
        "image": spec.image,
        "env": [dict(entry) for entry in pod.env],
        "ports": [
            {"name": port.name, "containerPort": port.number, "protocol": "TCP"}
            for port in pod.ports
        ],
        "resources": {
            "requests": dict(spec.resources.requests),
            "limits": dict(spec.resources.limits),
        },
        "startupProbe": dict(pod.startup),
        "readinessProbe": dict(pod.readiness),
        "livenessProbe": dict(pod.liveness),
        "securityContext": dict(container_security()),
        "volumeMounts": _mounts(pod),
    }
    if pod.args:
        made["args"] = list(pod.args)
    if spec.image_pull_policy:
        made["imagePullPolicy"] = spec.image_pull_policy
    return made


def _mounts(pod: Pod) -> list[dict[str, Any]]:
    made = [mount("data", pod.data_path), mount("tmp", "/tmp")]
    if pod.mount_admin:
        made.append(mount("admin", ADMIN_DIRECTORY, read_only=True))
    return [dict(entry) for entry in (*made, *pod.mounts)]


def _volumes(spec: EngineSpec, pod: Pod) -> list[dict[str, Any]]:
    made: list[Fields] = [scratch("tmp")]
    if pod.mount_admin:
        secret = names.admin_secret(spec.cr, spec.engine)
        # Read through the group that fsGroup gives the files; nobody else is let in.
        made.append({"name": "admin", "secret": {"secretName": secret, "defaultMode": 0o440}})
    if pod.config:
        name = names.engine_object(spec.cr, spec.engine)
        made.append({"name": "config", "configMap": {"name": name, "defaultMode": 0o444}})
    return [dict(volume) for volume in (*made, *pod.volumes)]


def _claim(spec: EngineSpec) -> dict[str, Any]:
    claim: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": spec.storage.size}},
    }
    if spec.storage.storage_class_name is not None:
        claim["storageClassName"] = spec.storage.storage_class_name
    labels = names.selector(spec.cr, spec.engine)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": labels},
        "spec": claim,
    }


def _digest(config: Mapping[str, str]) -> str:
    """Changes with the configuration, so that the pod is replaced when it does."""
    text = json.dumps(dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
