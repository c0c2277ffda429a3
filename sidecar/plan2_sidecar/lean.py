"""What keeps the start short and the process small: less to import, and less to look at again.

Modules, types and routes are most of what a sidecar holds, and live as long as it does. The
garbage collector walking them again and again costs more than any call does.
"""

import gc
import importlib
import ssl
from typing import Final

# Calls leave hardly any cycles: a look after so many new objects finds what there is.
_NEW_OBJECTS: Final = 10_000
_YOUNGER_LOOKS: Final = (20, 20)
# While all that is made is there to stay.
_STARTING: Final = 100_000


def starting() -> None:
    """To be called before anything large is imported."""
    gc.set_threshold(_STARTING, *_YOUNGER_LOOKS)
    _import_aiohttp()


def settle() -> None:
    """What is there now stays: the collector does not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *_YOUNGER_LOOKS)


def _import_aiohttp() -> None:
    """Without the machine's certificates, which it reads for a client's default TLS context.

    That takes a sixth of its import, and nobody uses that context: engines are given one of
    their own. Whoever did would trust nobody.
    """
    load = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = lambda *_: None  # type: ignore[method-assign]  # for now
    try:
        importlib.import_module("aiohttp")
    finally:
        ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]  # as it was
