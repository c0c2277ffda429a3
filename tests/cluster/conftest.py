"""Fixtures of the operator on a real API server; the operator is imported for these tests alone."""

from collections.abc import AsyncIterator

import pytest

from cluster.control_plane import ControlPlane
from fixtures import operator_lab
from fixtures.operator_lab import Lab
from plan2_operator.cluster import Cluster


@pytest.fixture(scope="session")
async def api(control_plane: ControlPlane) -> AsyncIterator[Cluster]:
    """A connection to an API server that serves the CRD."""
    async with operator_lab.connected(control_plane) as cluster:
        yield cluster


@pytest.fixture
async def lab(api: Cluster) -> AsyncIterator[Lab]:
    """A fresh namespace with an operator that has seen nothing yet."""
    async with operator_lab.laboratory(api) as made:
        yield made
