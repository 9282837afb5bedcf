"""What a transport gives a handler to answer with. A call is completed, not returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from servingd.core.batching.queue import Priority
from servingd.errors import Code

PRIORITY_HEADER = "x-servingd-priority"
RETRY_HEADER = "retry-after-ms"
REQUEST_ID_HEADER = "x-request-id"
"""What a caller sends so, its answer has as well."""


class Reply(Protocol):
    """One call's way back: answered once, from any thread; a second answer is dropped."""

    deadline: float | None
    """Monotonic seconds after which nobody waits any more."""

    @property
    def alone(self) -> bool:
        """Whether the transport has no other call in hand."""
        ...

    def priority(self) -> Priority:
        """What the caller says of its importance: `x-servingd-priority`."""
        ...

    def alive(self) -> bool:
        """Whether anybody still waits for the answer."""
        ...

    def begin_batch(self) -> Callable[[], None] | None:
        """See `Completion.begin_batch`."""
        return None

    def send(self, payload: bytes) -> bool:
        """Answer with a message; False if nobody waits any more."""
        ...

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        """Answer with a status, and when to try again; False if nobody waits any more."""
        ...


Handler: TypeAlias = Callable[[bytes, Reply], None]
"""Takes a request's bytes; completes the reply now or later; never raises."""


def priority_of(text: str) -> Priority:
    """What a header says: `high`, `normal` or `low`; anything else is normal."""
    return _PRIORITIES.get(text, Priority.NORMAL)


_PRIORITIES = {priority.name.lower(): priority for priority in Priority}
