"""The fixtures are plugins, one file a subject: `fixtures/fix_<subject>.py`."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same cases on every run, however busy the machine is.
settings.register_profile(
    "gate", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gate")

# Some fixtures use others, and would import them before pytest comes to them.
pytest.register_assert_rewrite("fixtures")

pytest_plugins = [
    f"fixtures.{file.stem}" for file in sorted(Path(__file__).parent.glob("fixtures/fix_*.py"))
]
