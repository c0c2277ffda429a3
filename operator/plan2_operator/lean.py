"""What keeps the operator's programs small: halves of libraries that nobody here uses."""

import importlib.util
import sys

_CLIENT = "kubernetes"


def starting() -> None:
    """To be called before anything large is imported.

    `import kubernetes` brings its synchronous half, and requests and OAuth with it: 9 MB. The
    asyncio half stands in the same package, which is therefore made, but not run.
    """
    if _CLIENT not in sys.modules:
        spec = importlib.util.find_spec(_CLIENT)
        assert spec is not None, "the programs need it"
        sys.modules[_CLIENT] = importlib.util.module_from_spec(spec)
