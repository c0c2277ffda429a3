"""A control plane alone, for tests: etcd and kube-apiserver, no node, no root, in seconds.

It serves what needs no pod to run: CRDs, validation, server-side apply, webhooks by URL,
watches. With `kube_controller_manager=True` namespaces go away, owned objects are collected
and StatefulSets make their pods (which then wait for a node for ever). Several run at once.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster import processes
from cluster.certificates import Pair
from cluster.processes import Program, ProgramFailed
from cluster.programs import Addresses, Credentials, Programs, credentials, with_loopback
from tools import build

PREFIX = "plan2-control-plane-"
ATTEMPTS = 3


class ControlPlane:
    """A context manager; inside it `kubeconfig` is the path of an administrator's kubeconfig."""

    def __init__(self, *, kube_controller_manager: bool = False) -> None:
        self._controllers = kube_controller_manager
        self._folder = Path()

    @property
    def folder(self) -> Path:
        """Where its certificates and logs lie, until it ends."""
        return self._folder

    @property
    def kubeconfig(self) -> Path:
        return self._folder / "kubeconfig"

    def __enter__(self) -> Self:
        binaries = control_plane_binaries()
        _forget_killed()
        for attempt in range(1, ATTEMPTS + 1):
            self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            processes.write_record(self._folder / "owner.json", _self())
            try:
                self._start(binaries)
            except ProgramFailed:
                self._end()
                if attempt == ATTEMPTS:  # else a port was taken meanwhile
                    raise
            except BaseException:
                self._end()
                raise
            else:
                return self
        raise AssertionError("unreachable")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _start(self, binaries: Mapping[str, Path]) -> None:
        api, etcd, peers, controllers = free_ports(4)
        addresses = Addresses("127.0.0.1", api, etcd, peers)
        programs = Programs(self._folder, binaries, addresses, with_loopback(os.environ, []))
        made = credentials(self._folder, addresses)
        start_control_plane(
            programs,
            made,
            # No Service leads to a loopback address, and pods are admitted without a controller
            # that makes service accounts only if that check is off.
            "--endpoint-reconciler-type=none",
            *([] if self._controllers else ["--disable-admission-plugins=ServiceAccount"]),
        )
        if self._controllers:
            manager = programs.controller_manager(made, controllers)
            processes.start(manager)
            wait_for_service_account(manager, addresses, made)

    def _end(self) -> None:
        # Nobody reads its data again, so it need not be flushed.
        processes.stop(processes.marked(self._folder), grace_seconds=0)
        shutil.rmtree(self._folder, ignore_errors=True)


def control_plane_binaries() -> dict[str, Path]:
    """The paths of etcd and of every Kubernetes program, built first where needed."""
    return {
        path.name: path
        for folder in build.ensure("etcd", "kubernetes").values()
        for path in folder.iterdir()
    }


def start_control_plane(
    programs: Programs,
    made: Credentials,
    *api_flags: str,
    started: Callable[[str], None] = lambda _: None,
) -> None:
    """Start etcd and the API server and wait until both are ready; tell `started` each name."""
    etcd = programs.etcd()
    processes.start(etcd)
    health = f"{programs.addresses.etcd}/health"
    processes.wait_until(etcd, lambda: answers(health, None), timeout_seconds=30)
    started("etcd")
    api_server = programs.api_server(made, *api_flags)
    processes.start(api_server)
    wait_for_api(api_server, programs.addresses, made)
    started("kube-apiserver")


def wait_for_api(program: Program, addresses: Addresses, made: Credentials) -> None:
    """Wait until the API server says that it is ready."""
    context = trusted(made.authority.pair.certificate, made.api_client)
    address = f"{addresses.server}/readyz"
    processes.wait_until(program, lambda: answers(address, context), timeout_seconds=120)


def wait_for_service_account(program: Program, addresses: Addresses, made: Credentials) -> None:
    """Wait until the controllers made the service account without which no pod is admitted."""
    context = trusted(made.authority.pair.certificate, made.api_client)
    address = f"{addresses.server}/api/v1/namespaces/default/serviceaccounts/default"
    processes.wait_until(program, lambda: answers(address, context), timeout_seconds=120)


def trusted(authority: Path, client: Pair | None) -> ssl.SSLContext:
    """A TLS context that trusts one authority and shows a client certificate, if any."""
    context = ssl.create_default_context(cafile=str(authority))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def answers(address: str, context: ssl.SSLContext | None) -> bool:
    """Whether a GET of this address is answered 200 within two seconds."""
    return fetch(address, context) is not None


def fetch(address: str, context: ssl.SSLContext | None) -> bytes | None:
    """The body of a GET that is answered 200 within two seconds, else None."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(address, timeout=2) as answer:
            return bytes(answer.read()) if answer.status == 200 else None
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except (OSError, http.client.HTTPException):
        return None


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback address that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def _forget_killed() -> None:
    """End what control planes left whose test process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = processes.read_record(folder / "owner.json")
        if owner is not None and not processes.is_alive(owner):
            processes.stop(processes.marked(folder))
            shutil.rmtree(folder, ignore_errors=True)


def _self() -> processes.Identity:
    identity = processes.identify(os.getpid())
    assert identity is not None
    return identity
