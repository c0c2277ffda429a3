"""The command lines of a control plane, as the lone control plane and the node both start it.

Pure: paths, addresses and certificates come in, `Program`s go out; `processes.py` starts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.certificates import Authority, Pair, key_pair, write_kubeconfig
from cluster.processes import Program

SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


@dataclass(frozen=True)
class Addresses:
    """Where a control plane listens and what it hands out (the networks as CIDR)."""

    address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    service_network: str = "10.96.0.0/16"
    service_address: str = "10.96.0.1"
    pod_network: str = "10.244.0.0/16"

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.api_port}"

    @property
    def etcd(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"


@dataclass(frozen=True)
class Credentials:
    """Every certificate of a control plane and the kubeconfigs of its programs."""

    authority: Authority
    api_server: Pair
    api_client: Pair
    service_accounts: Pair
    kubeconfigs: Mapping[str, Path]


def credentials(folder: Path, addresses: Addresses) -> Credentials:
    """Make the certificates and write the kubeconfigs (`admin` and one a program)."""
    pki = folder / "pki"
    authority = Authority(pki)
    identities = {
        "admin": ("plan2-admin", "system:masters"),
        "controller-manager": ("system:kube-controller-manager", None),
        "scheduler": ("system:kube-scheduler", None),
        "proxy": ("system:kube-proxy", None),
    }
    return Credentials(
        authority=authority,
        api_server=authority.leaf(
            "api-server",
            "kube-apiserver",
            names=SERVICE_NAMES,
            addresses=sorted({"127.0.0.1", addresses.address, addresses.service_address}),
        ),
        api_client=authority.leaf("api-client", "plan2-api-server", organization="system:masters"),
        service_accounts=key_pair(pki, "service-accounts"),
        kubeconfigs={
            name: write_kubeconfig(
                folder / ("kubeconfig" if name == "admin" else f"{name}.kubeconfig"),
                server=addresses.server,
                authority=authority.pair.certificate,
                user=authority.leaf(name, common_name, organization=organization),
            )
            for name, (common_name, organization) in identities.items()
        },
    )


@dataclass(frozen=True)
class Programs:
    """Makes each program of one control plane: its folder, its binaries, its addresses."""

    folder: Path
    binaries: Mapping[str, Path]
    addresses: Addresses
    environment: Mapping[str, str]

    def program(self, name: str, *flags: str) -> Program:
        """A program under the folder of its tool, with the flags given."""
        return Program(
            name=name,
            command=[str(self.binaries[name]), *flags],
            folder=self.folder,
            environment=self.environment,
        )

    def etcd(self) -> Program:
        where = self.addresses
        peers = f"http://127.0.0.1:{where.etcd_peer_port}"
        return self.program(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--name=plan2",
            f"--listen-client-urls={where.etcd}",
            f"--advertise-client-urls={where.etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=plan2={peers}",
            "--unsafe-no-fsync",
        )

    def api_server(self, made: Credentials, *flags: str) -> Program:
        where = self.addresses
        return self.program(
            "kube-apiserver",
            f"--etcd-servers={where.etcd}",
            f"--advertise-address={where.address}",
            f"--bind-address={where.address}",
            f"--secure-port={where.api_port}",
            f"--client-ca-file={made.authority.pair.certificate}",
            f"--tls-cert-file={made.api_server.certificate}",
            f"--tls-private-key-file={made.api_server.key}",
            f"--service-account-key-file={made.service_accounts.certificate}",
            f"--service-account-signing-key-file={made.service_accounts.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={where.service_network}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
            f"--cert-dir={self.folder / 'pki'}",
            *flags,
        )

    def controller_manager(self, made: Credentials, port: int, *flags: str) -> Program:
        where = self.addresses
        return self.program(
            "kube-controller-manager",
            f"--kubeconfig={made.kubeconfigs['controller-manager']}",
            f"--bind-address={where.address}",
            f"--secure-port={port}",
            f"--service-account-private-key-file={made.service_accounts.key}",
            f"--root-ca-file={made.authority.pair.certificate}",
            "--use-service-account-credentials",
            f"--cluster-signing-cert-file={made.authority.pair.certificate}",
            f"--cluster-signing-key-file={made.authority.pair.key}",
            f"--cert-dir={self.folder / 'pki'}",
            "--leader-elect=false",
            *flags,
        )


def with_loopback(environment: Mapping[str, str], addresses: Sequence[str]) -> dict[str, str]:
    """The environment for programs: the caller's, its proxies never between them and us."""
    kept = {name: value for name, value in environment.items() if name.lower() != "no_proxy"}
    exempt = ",".join(["127.0.0.1", "localhost", ".svc", ".cluster.local", *addresses])
    return {**kept, "NO_PROXY": exempt, "no_proxy": exempt}
