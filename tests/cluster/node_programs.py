"""The programs that make a machine a node: scheduler, kubelet, kube-proxy, CoreDNS, volumes.

Each function writes its program's configuration into the node's folder and returns the program.
"""

from __future__ import annotations

import json
from typing import Any

from cluster.certificates import write_kubeconfig
from cluster.layout import (
    ADDRESS,
    CGROUP,
    DNS_READY_PORT,
    NODE_NAME,
    POD_NETWORK,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    SCHEDULER_PORT,
    SHELL_IMAGE,
    VOLUME_NAMESPACE,
    Layout,
)
from cluster.processes import Program
from cluster.programs import Credentials, Programs

VOLUME_CONFIG = "local-path-config"


def scheduler(programs: Programs, made: Credentials) -> Program:
    return programs.program(
        "kube-scheduler",
        f"--kubeconfig={made.kubeconfigs['scheduler']}",
        f"--bind-address={ADDRESS}",
        f"--secure-port={SCHEDULER_PORT}",
        f"--cert-dir={programs.folder / 'pki'}",
        "--leader-elect=false",
    )


def kubelet(programs: Programs, made: Credentials, layout: Layout) -> Program:
    pair = made.authority.leaf(
        "kubelet",
        f"system:node:{NODE_NAME}",
        organization="system:nodes",
        names=[NODE_NAME],
        addresses=[ADDRESS],
    )
    kubeconfig = write_kubeconfig(
        layout.state / "kubelet.kubeconfig",
        server=programs.addresses.server,
        authority=made.authority.pair.certificate,
        user=pair,
    )
    resolver = layout.state / "resolv.conf"
    resolver.write_text(f"nameserver {ADDRESS}\n")
    config = layout.state / "kubelet.json"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": ADDRESS,
                "healthzBindAddress": ADDRESS,
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(made.authority.pair.certificate)},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(pair.certificate),
                "tlsPrivateKeyFile": str(pair.key),
                "containerRuntimeEndpoint": f"unix://{layout.socket}",
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{CGROUP}",
                "failCgroupV1": False,
                "failSwapOn": False,
                "clusterDomain": "cluster.local",
                "clusterDNS": [ADDRESS],
                "resolvConf": str(resolver),
                "podLogsDir": str(layout.state / "logs" / "pods"),
                "volumePluginDir": str(layout.state / "volume-plugins"),
                # No registry would bring a removed image back, so disks never cause removals.
                "imageGCHighThresholdPercent": 100,
                "evictionHard": {
                    "memory.available": "100Mi",
                    "nodefs.available": "0%",
                    "nodefs.inodesFree": "0%",
                    "imagefs.available": "0%",
                    "imagefs.inodesFree": "0%",
                },
            },
            indent=1,
        )
    )
    return programs.program(
        "kubelet",
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={ADDRESS}",
        f"--root-dir={layout.state / 'kubelet'}",
        f"--cert-dir={layout.state / 'pki'}",
    )


def proxy(programs: Programs, made: Credentials) -> Program:
    return programs.program(
        "kube-proxy",
        f"--kubeconfig={made.kubeconfigs['proxy']}",
        f"--hostname-override={NODE_NAME}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_NETWORK}",
        f"--healthz-bind-address={ADDRESS}:{PROXY_HEALTH_PORT}",
        f"--metrics-bind-address={ADDRESS}:{PROXY_METRICS_PORT}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--iptables-localhost-nodeports=false",
    )


def coredns(programs: Programs, layout: Layout) -> Program:
    """Answers for the cluster's own names only: a node without a registry needs no others."""
    config = layout.state / "Corefile"
    config.write_text(
        f""".:53 {{
  bind {ADDRESS}
  errors
  ready {ADDRESS}:{DNS_READY_PORT}
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    endpoint {programs.addresses.server}
    kubeconfig {layout.kubeconfig} plan2
    pods insecure
  }}
  cache 5
}}
"""
    )
    return programs.program("coredns", f"-conf={config}")


def volume_provisioner(programs: Programs, layout: Layout) -> Program:
    layout.volumes.mkdir(exist_ok=True)
    config = layout.state / "local-path.json"
    config.write_text(_volume_paths(layout))
    return programs.program(
        "local-path-provisioner",
        "start",
        f"--config={config}",
        f"--kubeconfig={layout.kubeconfig}",
        f"--namespace={VOLUME_NAMESPACE}",
        f"--configmap-name={VOLUME_CONFIG}",
        f"--helper-image={SHELL_IMAGE}",
        "--service-account-name=default",
    )


def volume_objects(layout: Layout) -> dict[str, Any]:
    """What the provisioner reads, and the default StorageClass `standard`, as one List."""
    helper = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "helper-pod", "image": SHELL_IMAGE, "imagePullPolicy": "Never"}
            ],
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": VOLUME_NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": VOLUME_CONFIG, "namespace": VOLUME_NAMESPACE},
                "data": {
                    "config.json": _volume_paths(layout),
                    "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
                    "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
                    "helperPod.yaml": json.dumps(helper),
                },
            },
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": "standard",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "rancher.io/local-path",
                "volumeBindingMode": "WaitForFirstConsumer",
                "reclaimPolicy": "Delete",
                # Requests to grow are taken; folders have no size that would have to follow.
                "allowVolumeExpansion": True,
            },
        ],
    }


def _volume_paths(layout: Layout) -> str:
    everywhere = {"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(layout.volumes)]}
    return json.dumps({"nodePathMap": [everywhere]})
