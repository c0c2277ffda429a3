"""The fixtures are plugins, one file a subject: `fixtures/fix_<subject>.py`."""

from pathlib import Path

pytest_plugins = [
    f"fixtures.{file.stem}" for file in sorted(Path(__file__).parent.glob("fixtures/fix_*.py"))
]
