"""HTTP requests, whole, and the way back to who sent them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from servingd.frontends.reply import REQUEST_ID_HEADER

Headers: TypeAlias = "tuple[tuple[str, str], ...]"


@dataclass(slots=True)
class HttpRequest:
    """One request, whole."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By lower-case name; of several the values are joined with commas."""
    body: bytes
    notes: dict[str, Any] = field(default_factory=dict)
    """What handlers work out of all but the body: other requests with the same head may have it."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Writer(Protocol):
    """Writes answers; see `HttpTransport`."""

    @property
    def alone(self) -> bool:
        """Whether there is no more than one client."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether this is the thread that writes."""
        ...

    def answered(self, client: Any) -> None:
        """A reply of this client has its answer; from any thread."""
        ...


class ClientConnection(Protocol):
    """A client that waits for answers; see `Connection`."""

    lost: bool
    """Whether it has gone."""

    @property
    def owner(self) -> Writer:
        """Who writes its answers."""
        ...


class HttpReply:
    """A request's way back: answered once, from any thread."""

    __slots__ = (
        "_connection",
        "_head",
        "_keep_alive",
        "_request_id",
        "_unanswered",
        "deadline",
        "expire",
        "payload",
    )

    def __init__(
        self,
        connection: ClientConnection,
        head: bool,
        keep_alive: bool,
        request_id: str | None = None,
    ) -> None:
        self._request_id = request_id
        self._connection = connection
        self._head = head
        self._keep_alive = keep_alive
        self._unanswered = [True]  # whoever takes it out answers: one step, whatever the threads
        # Head and body, set once, before the loop is told; many answers may share a body.
        self.payload: tuple[bytes, bytes] | None = None
        self.deadline = float("inf")
        """When the handler's own time for it is up, in monotonic seconds."""
        self.expire: Callable[[], None] = _nothing
        """What then answers, on the loop's thread, up to one sweep late."""

    @property
    def alone(self) -> bool:
        """Whether nobody else is connected."""
        return self._connection.owner.alone

    @property
    def is_here(self) -> bool:
        """Whether this is the thread that writes: it has others to answer."""
        return self._connection.owner.is_here

    def alive(self) -> bool:
        """Whether anybody still waits for the answer."""
        return bool(self._unanswered) and not self._connection.lost

    def send(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> bool:
        """Answer; False, and nothing is sent, if there was an answer already."""
        try:
            self._unanswered.pop()
        except IndexError:
            return False
        start = _head_form(status, content_type, headers, self._keep_alive) % len(body)
        if self._request_id is not None:
            own = f"{REQUEST_ID_HEADER}: {self._request_id}\r\n\r\n"
            start = start[:-2] + own.encode("latin-1")
        self.payload = (start, b"" if self._head else body)
        self._connection.owner.answered(self._connection)
        return True

    def close(self) -> None:
        """Let the connection end with this answer."""
        self._keep_alive = False

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return not self._keep_alive


def _nothing() -> None:
    """Nothing expires."""


HttpHandler: TypeAlias = "Callable[[HttpRequest, HttpReply], None]"
"""Completes the reply now or later; runs on the loop's thread and must not wait."""


@lru_cache(maxsize=256)
def _head_form(status: int, content_type: str, headers: Headers, keep_alive: bool) -> bytes:
    """What stands in front of a body, with a place for its length."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Client Error"
    lines = [f"content-type: {content_type}", *(f"{name}: {value}" for name, value in headers)]
    if not keep_alive:
        lines.append("connection: close")
    fixed = "\r\n".join(lines).replace("%", "%%")
    return f"HTTP/1.1 {status} {phrase}\r\ncontent-length: %d\r\n{fixed}\r\n\r\n".encode("latin-1")
