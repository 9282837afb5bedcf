"""The interface by which a handler answers. A call is completed, not returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from servingd.core.batching.queue import Priority
from servingd.errors import Code

PRIORITY_HEADER = "x-servingd-priority"
RETRY_HEADER = "retry-after-ms"
AUTHORIZATION_HEADER = "authorization"
REQUEST_ID_HEADER = "x-request-id"
"""A header of the caller's that is repeated in the answer."""
TRACE_HEADER = "traceparent"
"""The W3C's header that says which trace a call belongs to."""


class Reply(Protocol):
    """Sends one call's answer: once, from any thread; a second answer is dropped."""

    deadline: float | None
    """Monotonic seconds after which nobody waits any more; None where the caller set none."""

    @property
    def alone(self) -> bool:
        """Whether the transport has no other call in hand."""
        ...

    def priority(self) -> Priority:
        """Return the priority in `x-servingd-priority`."""
        ...

    def authorization(self) -> str:
        """Return the call's `authorization` metadata; empty where there is none."""
        ...

    def request_id(self) -> str:
        """Return the caller's `x-request-id`, else its `traceparent`; empty where it has none."""
        ...

    def alive(self) -> bool:
        """Return whether somebody still waits for the answer."""
        ...

    def begin_batch(self) -> Callable[[], None] | None:
        """Buffer this thread's responses; see `Completion.begin_batch`."""
        return None

    def send(self, payload: bytes) -> bool:
        """Send a message; return False if nobody waits any more."""
        ...

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        """Send a status, and when to try again; return False if nobody waits any more."""
        ...


class PartsReply(Reply, Protocol):
    """Sends an answer in parts, from any thread, one call at a time; only `fail` may come beside.

    After `end` or `fail` nothing is sent. A failure before the first part is sent as any other.
    """

    def wants_part(self) -> bool:
        """Return whether few parts wait to be sent."""
        ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` when it wants a part again, and when nobody waits any more; set once.

        It is called on the transport's threads, perhaps more often than needed.
        """
        ...

    def send_part(self, payload: bytes) -> bool:
        """Send a message; return False if nobody waits any more."""
        ...

    def end(self) -> bool:
        """End the answer; return False if nobody waits any more."""
        ...


_IDS = (REQUEST_ID_HEADER, TRACE_HEADER)
MAX_REQUEST_ID = 128
"""The characters of a request's id that are logged."""

MOST_PARTS = 2
"""Parts that wait in a reply; its transport may hold as many again that its client has not read."""

Handler: TypeAlias = Callable[[bytes, Reply], None]
"""Takes a request's bytes; completes the reply now or later; never raises."""

PartsHandler: TypeAlias = Callable[[bytes, PartsReply], None]
"""A `Handler` that answers in parts."""


def request_id_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the request's id in gRPC metadata; see `Reply.request_id`."""
    found = {key: str(value) for key, value in metadata if key in _IDS}
    known = next((found[key] for key in _IDS if key in found), "")[:MAX_REQUEST_ID]
    # It goes into a log that people read in terminals.
    return known if known.isprintable() else "".join(c if c.isprintable() else "?" for c in known)


def priority_of(text: str) -> Priority:
    """Return the priority in a header: `high`, `normal` or `low`; anything else is normal."""
    return _PRIORITIES.get(text, Priority.NORMAL)


_PRIORITIES = {priority.name.lower(): priority for priority in Priority}
