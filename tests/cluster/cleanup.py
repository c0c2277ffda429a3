"""Ends a node and removes all it left, whether it was stopped in order or killed half-way.

Everything is found by what is ours alone: the mark in a process's environment, our control
group, our bridges, mounts below our folder, chains that were not there before.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from cluster import firewall, host, processes
from cluster.kinds import ClusterFailed
from cluster.layout import CGROUP, NODE_BRIDGE, POD_BRIDGE, PROGRAMS, Layout
from cluster.processes import Identity

CGROUPS = Path("/sys/fs/cgroup")
EMPTYING_SECONDS = 15.0


def reset(layout: Layout) -> None:
    """Bring the machine back to what it was before the node of this folder."""
    before = host.remembered(layout)
    end_programs(layout)
    end_containers()
    unmount(layout.state)
    remove_interfaces()
    firewall.remove(frozenset(before.chains))
    remove_cgroups()
    host.clear_shared_folders(layout, before)
    host.restore_settings(before)
    _remove_folder(layout)


def end_programs(layout: Layout) -> None:
    """End the programs and containerd's shims, recorded or only marked."""
    records = (processes.running(processes.record_of(layout.state, name)) for name in PROGRAMS)
    ours = {identity for identity in records if identity is not None}
    # Their data is removed next, so none is given time to flush it.
    processes.stop({*ours, *processes.marked(layout.state)}, grace_seconds=0.3)


def end_containers() -> None:
    """End every process of our control group: what ran in pods."""
    limit = time.monotonic() + EMPTYING_SECONDS
    while inside := contained():
        for identity in inside:
            processes.send(identity, signal.SIGKILL)
        if time.monotonic() > limit:
            pids = ", ".join(str(identity.pid) for identity in inside)
            raise ClusterFailed(f"processes {pids} of the node's pods did not end")
        time.sleep(0.05)


def contained() -> set[Identity]:
    """Every process of our control group."""
    found = set()
    for root in cgroup_roots():
        for listing in root.rglob("cgroup.procs"):
            with suppress(OSError):  # a group may go away meanwhile
                found |= {processes.identify(int(pid)) for pid in listing.read_text().split()}
    return {identity for identity in found if identity is not None}


def cgroup_roots() -> list[Path]:
    """Our control group in each hierarchy where it stands."""
    hierarchies = {CGROUPS.resolve(), *(path.resolve() for path in CGROUPS.glob("*"))}
    return [path / CGROUP for path in sorted(hierarchies) if (path / CGROUP).is_dir()]


def unmount(below: Path) -> None:
    """Unmount everything below a folder; what is busy is detached."""
    for flags in ([], [], ["-l"]):
        points = host.mount_points(below)
        if not points:
            return
        subprocess.run(["umount", *flags, *points], check=False, capture_output=True)
    if left := host.mount_points(below):
        raise ClusterFailed(f"{left[0]} stays mounted, so nothing below {below} is removed")


def remove_interfaces() -> None:
    """Remove our bridges and the ends of the pods' cables that hang on them."""
    listed = subprocess.run(
        ["ip", "-json", "link", "show"], check=True, capture_output=True, text=True
    ).stdout
    ours = {NODE_BRIDGE, POD_BRIDGE}
    links = json.loads(listed)
    cables = [link["ifname"] for link in links if link.get("master") in ours]
    for name in [*cables, *(link["ifname"] for link in links if link["ifname"] in ours)]:
        # The other end's network namespace may just be taking it away.
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def remove_cgroups() -> None:
    """Remove our control group and all below it, in every hierarchy."""
    limit = time.monotonic() + EMPTYING_SECONDS
    while roots := cgroup_roots():
        for root in roots:
            below = [path for path in root.rglob("*") if path.is_dir()]
            for group in [*sorted(below, reverse=True), root]:
                with suppress(OSError):  # busy until the last process is buried
                    group.rmdir()
        if time.monotonic() > limit:
            raise ClusterFailed(f"{roots[0]} cannot be removed")
        if cgroup_roots():
            time.sleep(0.1)


def _remove_folder(layout: Layout) -> None:
    """Remove the folder, what marks it as ours last, so that a kill here is recovered from."""
    for entry in layout.state.iterdir():
        if entry == layout.before:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    layout.before.unlink()
    layout.state.rmdir()
