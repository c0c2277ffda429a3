"""Which firewall rules a node added, and the script for iptables-restore that removes them.

Pure but for `chains()` and `remove()`, which run iptables for both families.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

from cluster.layout import CNI_NETWORK

FAMILIES = ("iptables", "ip6tables")
OF_NODES = re.compile(r"KUBE-|CNI-")
JUMP = re.compile(r" (?:-j|-g) (\S+)")


def chains() -> list[str]:
    """Every chain of a kubelet, a kube-proxy or a CNI plugin there is: `family table chain`."""
    return [
        f"{family} {table} {chain}"
        for family in FAMILIES
        for table, lines in _tables(_saved(family))
        for chain in _declared(lines)
        if OF_NODES.match(chain)
    ]


def remove(keep: frozenset[str]) -> None:
    """Remove the node's chains, and the rules that lead to them, except the chains to keep."""
    for family in FAMILIES:
        script = removal(_saved(family), family, keep)
        if script:
            subprocess.run(
                [_command(f"{family}-restore"), "--noflush", "--wait"],
                input=script,
                text=True,
                check=True,
                capture_output=True,
            )


def removal(saved: str, family: str, keep: frozenset[str]) -> str:
    """What iptables-restore must read to remove our part of what iptables-save printed."""
    script: list[str] = []
    for table, lines in _tables(saved):
        kept = {chain for chain in _declared(lines) if f"{family} {table} {chain}" in keep}
        if ours := _ours(lines) - kept:
            leading = [
                "-D" + line.removeprefix("-A")
                for line in lines
                if line.startswith("-A ")
                and line.split()[1] not in ours
                and ours.intersection(JUMP.findall(line))
            ]
            emptied = [f"-F {chain}" for chain in sorted(ours)]
            deleted = [f"-X {chain}" for chain in sorted(ours)]
            script += [f"*{table}", *leading, *emptied, *deleted, "COMMIT"]
    return "\n".join([*script, ""]) if script else ""


def _ours(lines: list[str]) -> set[str]:
    """Chains of kubelet and kube-proxy, and of the CNI plugins those of our own network."""
    declared = set(_declared(lines))
    named = [line for line in lines if CNI_NETWORK in line]
    pods = {chain for line in named for chain in JUMP.findall(line) if chain.startswith("CNI-")}
    ours = declared & ({chain for chain in declared if chain.startswith("KUBE-")} | pods)
    ports = [line for line in lines if line.startswith("-A CNI-HOSTPORT-DNAT ")]
    # Shared by all networks that publish ports; ours once nobody else's pod is behind it.
    if all(ours.intersection(JUMP.findall(line)) for line in ports):
        ours |= {chain for chain in declared if chain.startswith("CNI-HOSTPORT-")}
    return ours


def _tables(saved: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\*", saved, flags=re.MULTILINE)[1:]:
        table, *lines = part.splitlines()
        yield table, lines


def _declared(lines: list[str]) -> list[str]:
    return [line[1:].split()[0] for line in lines if line.startswith(":")]


def _saved(family: str) -> str:
    command = _command(f"{family}-save")
    answer = subprocess.run([command], capture_output=True, text=True, check=False)
    return answer.stdout if answer.returncode == 0 else ""  # a kernel without IPv6 has none


def _command(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or name
