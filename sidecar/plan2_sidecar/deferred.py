"""Stand-ins for what libraries import and hardly anybody uses: the real thing comes when needed.

Together they are an eighth of an idle sidecar, and a fifth of the CPU until it listens.
"""

import contextlib
import importlib
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, Final

# For proxies, uploads, error pages, names that are not ASCII and a command line of its own.
_OF_AIOHTTP: Final = ("argparse", "html", "idna", "tempfile", "urllib.request")
# For the service files of libpq, and for connections without a user.
_OF_DRIVERS: Final = ("configparser", "getpass")
# Only frozenlist links the C++ library, for lists that are read while a server is set up.
_SWITCH: Final = "FROZENLIST_NO_EXTENSIONS"
_HEADERS: Final = "email.headerregistry"
# Not one of our packages. What a caller may send must not depend on what else is installed.
_ZSTD: Final = "backports.zstd"


@contextlib.contextmanager
def for_aiohttp() -> Iterator[None]:
    """While aiohttp is imported."""
    headers = ModuleType(_HEADERS)
    headers.HeaderRegistry = _Headers  # type: ignore[attr-defined]
    others = _standing({_HEADERS: headers, _ZSTD: None})
    with _functions(*_OF_AIOHTTP), others, _no_contexts():
        with _switched(_SWITCH):
            importlib.import_module("frozenlist")
        yield


@contextlib.contextmanager
def for_drivers() -> Iterator[None]:
    """While the driver of an engine is imported."""
    with _functions(*_OF_DRIVERS):
        yield


class _Functions(ModuleType):
    """In place of a module whose functions and classes are called, and nothing else."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*given: Any, **named: Any) -> Any:
            return getattr(self._real(), name)(*given, **named)

        return call

    def _real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


class _Headers:
    """In place of the registry of mail's headers that `email.policy` makes for each policy."""

    def __call__(self, name: str, value: str) -> Any:
        return _registry()(name, value)


@cache
def _registry() -> Callable[[str, str], Any]:
    real: Callable[[str, str], Any] = importlib.import_module(_HEADERS).HeaderRegistry()
    return real


class _NoContext:
    """In place of a TLS context: nothing can be connected with it."""

    options = 0
    verify_flags = 0

    def load_default_certs(self, *_: object) -> None: ...

    def set_default_verify_paths(self) -> None: ...

    def set_alpn_protocols(self, _: object) -> None: ...

    def get_ca_certs(self) -> list[Any]:
        return []


def _functions(*names: str) -> contextlib.AbstractContextManager[None]:
    return _standing({name: _Functions(name) for name in names})


@contextlib.contextmanager
def _standing(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """These in place of the modules that are not there yet; None for one that must not come."""
    absent = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None is how Python has it
    try:
        yield
    finally:
        for name, module in absent.items():
            if sys.modules.get(name, ...) is module:
                del sys.modules[name]


@contextlib.contextmanager
def _no_contexts() -> Iterator[None]:
    """aiohttp makes two for its client, and reads the machine's certificates for them.

    Nobody uses them: engines are given one of their own. OpenSSL sleeps until there is one.
    """
    new = ssl.SSLContext.__dict__["__new__"]
    ssl.SSLContext.__new__ = lambda *_: _NoContext()  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        ssl.SSLContext.__new__ = new  # type: ignore[method-assign]


@contextlib.contextmanager
def _switched(variable: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before
