"""What a node changes on the machine outside its own folder: remembered before, restored after.

Kernel settings, folders that its programs insist on, sockets and links in folders they share
with others. Firewall rules are `firewall.py`'s, mounts, interfaces and processes `cleanup.py`'s.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import firewall
from cluster.layout import CNI_NETWORK, Layout

# kubelet, kube-proxy and the CNI plugins set these.
SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

# Written to by containerd, its shims, kubelet and libcni whatever their configuration says.
SHARED_FOLDERS = (
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)


@dataclass(frozen=True)
class Before:
    """The machine before the node: settings and values, folders that were not, chains that were."""

    settings: dict[str, str]
    absent: list[str]
    chains: list[str]


def look() -> Before:
    """Read what a node will change."""
    return Before(
        settings={
            name: (Path("/proc/sys") / name).read_text().strip()
            for name in SETTINGS
            if (Path("/proc/sys") / name).exists()
        },
        absent=[folder for folder in SHARED_FOLDERS if not Path(folder).exists()],
        chains=firewall.chains(),
    )


def remember(layout: Layout) -> None:
    """Write what the machine is like now; the folder is the node's from here on."""
    layout.state.mkdir(parents=True, exist_ok=True)
    partial = layout.before.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(look()), indent=1))
    partial.rename(layout.before)


def remembered(layout: Layout) -> Before:
    """What the machine was like before the node whose folder this is."""
    return Before(**json.loads(layout.before.read_text()))


def restore_settings(before: Before) -> None:
    """Give each kernel setting the value it had."""
    for name, value in before.settings.items():
        path = Path("/proc/sys") / name
        with suppress(FileNotFoundError, PermissionError):
            if path.read_text().strip() != value:
                path.write_text(value)


def clear_shared_folders(layout: Layout, before: Before) -> None:
    """Remove from shared folders what is ours, then the folders that were not there before."""
    for address in layout.containerd_state.glob("io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(layout.state):
            link.unlink()
    for result in Path("/var/lib/cni").glob(f"*/{CNI_NETWORK}-*"):
        result.unlink()
    for folder in before.absent:
        if not _mounted_below(Path(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def mount_points(below: Path) -> list[Path]:
    """Everything that is mounted at or below a folder, the deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))  # a space is \040
        if point.is_relative_to(below):
            found.append(point)
    return found[::-1]


def file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on."""
    best = ("", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if folder.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, right.split()[0])
    return best[1]


def _mounted_below(folder: Path) -> bool:
    return bool(mount_points(folder))
