"""Whether the data that one version of an engine has written may be given to another. Pure.

An engine that finds data it cannot read does not start at best; PostgreSQL's image of another
layout starts on an empty directory beside the old one. So what is known not to work is refused
before anything is written. An image whose tag says no version is let through.
"""

import re
from typing import Final

from plan2_contract.engines import Engine
from plan2_operator.engines import postgresql
from plan2_operator.errors import InvalidSpec
from plan2_operator.model import EngineSpec

DOWNGRADE_REFUSED: Final = "DowngradeRefused"
UPGRADE_REFUSED: Final = "UpgradeRefused"
_TAG: Final = re.compile(r":v?(\d{1,3})(?:\.(\d{1,3}))?(?:[^\d][^/]*)?$")


def check(spec: EngineSpec, written_by: str) -> None:
    """Refuse `spec.image` for data last written by the image `written_by`; raises InvalidSpec."""
    before, after = _version(written_by), _version(spec.image)
    known = min(len(before), len(after))
    if spec.engine is Engine.POSTGRESQL:
        # Its minor versions read each other's data, in both directions.
        known = min(known, 1)
        if not known and postgresql.data_path(written_by) != postgresql.data_path(spec.image):
            raise _refusal(spec, written_by, UPGRADE_REFUSED, "its data stand elsewhere")
    if after[:known] < before[:known]:
        raise _refusal(spec, written_by, DOWNGRADE_REFUSED, "an engine does not go back")
    if known and after[0] - before[0] > _majors_at_once(spec.engine):
        why = {
            Engine.POSTGRESQL: "another major version reads its data only after pg_upgrade",
            Engine.MONGODB: "one major version at a time",
        }
        raise _refusal(spec, written_by, UPGRADE_REFUSED, why[spec.engine])


def _majors_at_once(engine: Engine) -> int:
    return {Engine.POSTGRESQL: 0, Engine.MONGODB: 1}.get(engine, 1000)


def _version(image: str) -> tuple[int, ...]:
    """Major and minor as far as the tag says them."""
    match = _TAG.search(image.partition("@")[0])
    return tuple(int(part) for part in match.groups() if part) if match else ()


def _refusal(spec: EngineSpec, written_by: str, reason: str, why: str) -> InvalidSpec:
    message = (
        f"{spec.image} cannot take over the volume of {written_by}: {why}; "
        "move the data by a dump, into a resource of another name"
    )
    return InvalidSpec(f"{spec.path}.image", message, reason=reason)
