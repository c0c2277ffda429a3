"""The operator's own program, with engines that take every provisioning at once.

On a control plane alone no engine runs. The drivers are imported all the same, so that the
memory is that of an operator that has used each of them.
"""

import importlib
from typing import Any

from plan2_operator import provision


async def _taken(*_: Any, **__: Any) -> None:
    """Stands for `provision.provision`."""


for _module in provision.MODULES.values():
    importlib.import_module(_module)
for _driver in ("aiohttp", "arango", "asyncpg", "pymongo", "redis.asyncio"):
    importlib.import_module(_driver)
# Before `reconcile` is imported: it takes the function as the default of a field.
provision.provision = _taken

if __name__ == "__main__":
    importlib.import_module("plan2_operator.__main__").main()
