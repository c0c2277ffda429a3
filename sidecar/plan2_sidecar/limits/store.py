"""What limits ask of the store, as a seam: `plan2_sidecar.store.Store` in a running sidecar."""

from collections.abc import Sequence
from typing import Any, Protocol

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.store import Script, Word


class CounterStore(Protocol):
    """Commands and scripts, each within the deadline; what goes wrong is a Problem."""

    async def ask(self, *command: Word, deadline: Deadline) -> Any:
        """The reply to one command."""
        ...

    async def run(
        self, script: Script, key: Word, arguments: Sequence[Word], deadline: Deadline
    ) -> Any:
        """The reply of a script."""
        ...

    async def run_beside(
        self,
        script: Script,
        key: Word,
        arguments: Sequence[Word],
        command: Sequence[Word],
        deadline: Deadline,
    ) -> tuple[Any, Any]:
        """The reply of a script, and that to a command that leaves with it."""
        ...
