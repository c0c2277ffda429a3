"""The operator's program: reads its settings, connects, and runs until it is told to stop."""

# ruff: noqa: E402  before the rest is imported
from plan2_operator import lean

lean.starting()

import argparse
import asyncio
import logging
import os
import time
from dataclasses import replace
from random import SystemRandom
from typing import Any, Final

import kopf

from plan2_contract import memory, names
from plan2_operator import handlers, health, kinds, metrics, pods, sight
from plan2_operator.cluster import Cluster, ClusterError, NoCluster
from plan2_operator.reconcile import Reconciler
from plan2_operator.settings import InvalidSetting, Settings
from plan2_operator.work_queue import Key, WorkQueue

OPTIONAL_KINDS_SECONDS: Final = 300.0
MEMORY_SECONDS: Final = 30.0
# kopf has a type of its own for it, which it does not export.
_IDENTITY: Final[Any] = names.FIELD_MANAGER
_LOG: Final = logging.getLogger("plan2_operator")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `plan2-operator`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    # kopf says a line for each event it hands on; what happens is said by the reconcile itself.
    logging.getLogger("kopf").setLevel(logging.INFO if options.verbose else logging.WARNING)
    try:
        settings = Settings.from_environ(os.environ)
    except InvalidSetting as error:
        parser.error(str(error))
    if options.namespace:
        settings = replace(settings, watch_namespaces=tuple(options.namespace))
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig
    try:
        asyncio.run(run(settings))
    except NoCluster as error:
        parser.error(str(error))


async def run(settings: Settings) -> None:
    """Run the operator until a signal."""
    cluster = await Cluster.connect(watches=len(settings.watch_namespaces) or 1)
    pulse = health.Pulse(limit_seconds=settings.liveness_seconds, clock=time.monotonic)
    reconciler = Reconciler.connected(cluster, settings)
    queue = WorkQueue(reconciler.run, random=SystemRandom(), on_run=pulse.beat)
    reconciler.provisioning.wake = queue.add
    metrics.queue_depth.set_function(queue.depth)
    metrics.platforms.set_function(lambda: len(queue.keys()))
    registry = kopf.OperatorRegistry()
    reconciler.sight = sight.Sight(keep_seconds=sight.KEEP_SECONDS)

    def touched(key: Key) -> None:
        reconciler.sight.lose(key)
        queue.add(key)

    handlers.register(registry, queue.add, touched)

    def well() -> bool:
        return queue.longest_run_seconds() < settings.stuck_seconds

    try:
        async with health.served(pulse, host=settings.health_host, port=settings.health_port):
            beating = asyncio.create_task(health.keep_beating(pulse, well))
            looking = asyncio.create_task(_look_for_optional_kinds(cluster))
            tidying = asyncio.create_task(_give_memory_back())
            await _wait_for_resource_definition(cluster)
            pulse.started = True
            following = asyncio.create_task(
                pods.follow(cluster, settings.watch_namespaces, touched)
            )
            where = ", ".join(settings.watch_namespaces) or "all namespaces"
            _LOG.info("watching %s in %s", kinds.PLATFORM.plural, where)
            try:
                await kopf.operator(
                    registry=registry,
                    settings=handlers.kopf_settings(settings),
                    standalone=True,
                    # Else kopf asks for the name of the user, and a container's has none.
                    identity=_IDENTITY,
                    clusterwide=not settings.watch_namespaces,
                    namespaces=settings.watch_namespaces,
                )
            finally:
                following.cancel()
                beating.cancel()
                looking.cancel()
                tidying.cancel()
                await queue.close()
                await reconciler.provisioning.close()
    finally:
        await cluster.close()


async def _wait_for_resource_definition(cluster: Cluster) -> None:
    """Started before its CRD, the operator waits: kopf would never look for it again."""
    while True:
        try:
            if await cluster.has(kinds.PLATFORM):
                return
            _LOG.warning("the cluster does not serve %s yet", kinds.PLATFORM.plural)
        except ClusterError as error:
            _LOG.warning("%s", error)
        await asyncio.sleep(2)


async def _look_for_optional_kinds(cluster: Cluster) -> None:
    while True:
        try:
            await cluster.refresh_optional()
        except ClusterError as error:
            _LOG.warning("optional kinds: %s", error)
        await asyncio.sleep(OPTIONAL_KINDS_SECONDS)


async def _give_memory_back() -> None:
    """Many resources brought on at once leave the process larger than it has to be."""
    while True:
        await asyncio.sleep(MEMORY_SECONDS)
        memory.give_back()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="plan2-operator", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, or the pod's service account")
    parser.add_argument("--namespace", action="append", help="watch only this one; repeatable")
    parser.add_argument("--verbose", action="store_true", help="log at debug level")
    return parser


if __name__ == "__main__":
    main()
