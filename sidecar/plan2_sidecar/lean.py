"""What keeps the start short and the process small: less to import, and less to look at again.

Modules, types and routes are most of what a sidecar holds, and live as long as it does. The
garbage collector walking them again and again costs more than any call does. What is imported
without being used is kept out (`deferred`), and what was in use while they were made is given back.
"""

import gc
import importlib
import mimetypes
from typing import Final

from plan2_contract import memory
from plan2_sidecar import deferred

# Calls leave hardly any cycles: a look after so many new objects finds what there is.
_NEW_OBJECTS: Final = 10_000
_YOUNGER_LOOKS: Final = (20, 20)
# While all that is made is there to stay.
_STARTING: Final = 100_000


def starting() -> None:
    """To be called before anything large is imported."""
    gc.set_threshold(_STARTING, *_YOUNGER_LOOKS)
    # Nothing here serves files, and the machine's list of their types is long.
    mimetypes.knownfiles = []
    with deferred.for_aiohttp():
        importlib.import_module("aiohttp.web")


def load(module: str) -> None:
    """Import the module of an engine, with its driver; to be called off the loop."""
    with deferred.for_drivers():
        importlib.import_module(module)


def settle() -> None:
    """What is there now stays: the collector does not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *_YOUNGER_LOOKS)
    memory.give_back()
