"""The fixtures are plugins, one file a subject: `fixtures/fix_<subject>.py`."""

from pathlib import Path

import pytest

# Some fixtures use others, and would import them before pytest comes to them.
pytest.register_assert_rewrite("fixtures")

pytest_plugins = [
    f"fixtures.{file.stem}" for file in sorted(Path(__file__).parent.glob("fixtures/fix_*.py"))
]
