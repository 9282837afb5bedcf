"""HTTP requests and the replies to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from servingd.frontends.http.parts import PartedBody
from servingd.frontends.reply import REQUEST_ID_HEADER

Headers: TypeAlias = "tuple[tuple[str, str], ...]"


@dataclass(slots=True)
class HttpRequest:
    """One whole request."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Headers by lower-case name; several of one name are joined with commas."""
    body: bytes
    notes: dict[str, Any] = field(default_factory=dict)
    """A cache of what handlers work out from the head; shared by requests with the same head."""
    takes_chunks: bool = True
    """Whether the client knows chunked bodies, as all do that speak HTTP/1.1."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Writer(Protocol):
    """Writes responses; see `HttpLoop`."""

    @property
    def alone(self) -> bool:
        """Whether there is at most one client."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the one that writes."""
        ...

    def answered(self, client: Any) -> None:
        """Schedule the writing of a client's response. Thread-safe."""
        ...


class ClientConnection(Protocol):
    """A client that waits for responses; see `Connection`."""

    lost: bool
    """Whether it has disconnected."""

    @property
    def owner(self) -> Writer:
        """What writes its responses."""
        ...


class HttpReply:
    """Answers one request: once, from any thread."""

    __slots__ = (
        "_connection",
        "_head",
        "_keep_alive",
        "_request_id",
        "_unanswered",
        "deadline",
        "expire",
        "parts",
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
        self._unanswered = [True]  # popping it is atomic: the thread that succeeds answers
        # Head and body, set once, before the loop is notified; responses may share a body.
        self.payload: tuple[bytes, bytes] | None = None
        self.parts: PartedBody | None = None
        """The body, if it is sent in parts; then there is no `payload`."""
        self.deadline = float("inf")
        """Monotonic seconds after which `expire` is called; set by the handler."""
        self.expire: Callable[[], None] = _nothing
        """Answers after the deadline; called on the loop's thread, up to one sweep late."""

    @property
    def alone(self) -> bool:
        """Whether no other client is connected."""
        return self._connection.owner.alone

    @property
    def is_here(self) -> bool:
        """Whether the calling thread writes responses, so that other clients wait for it."""
        return self._connection.owner.is_here

    def alive(self) -> bool:
        """Return whether somebody still waits for the response."""
        return bool(self._unanswered) and not self._connection.lost

    def send(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> bool:
        """Send the response; return False, and send nothing, if there was one already."""
        try:
            self._unanswered.pop()
        except IndexError:
            return False
        start = _head_form(status, content_type, headers, self._keep_alive) % len(body)
        if self._request_id is not None:
            start = self._with_request_id(start)
        self.payload = (start, b"" if self._head else body)
        self._connection.owner.answered(self._connection)
        return True

    def begin(
        self, status: int, content_type: str, headers: Headers = (), *, chunked: bool = True
    ) -> PartedBody | None:
        """Begin a response whose body is sent in parts; return None if there was one already.

        `chunked` is the request's `takes_chunks`; without it the connection ends with the body.
        """
        if not chunked:
            self._keep_alive = False
        # Set before it is known that this thread answers: whoever is too late with another answer
        # finds it. The loop finds nothing in it before it has begun.
        body = self.parts = self.parts or PartedBody(chunked, self._flush)
        try:
            self._unanswered.pop()
        except IndexError:
            return None
        frame = (("transfer-encoding", "chunked"),) if chunked else ()
        start = _head_start(status, content_type, (*frame, *headers), self._keep_alive)
        if self._request_id is not None:
            start = self._with_request_id(start)
        body.begin(start, whole=self._head)
        if self._connection.lost:  # else it will find the body when it is lost
            body.lose()
        return body

    def drop(self) -> None:
        """Take no answer any more: the connection ends with an earlier response."""
        self._unanswered.clear()
        if self.parts is not None:
            self.parts.lose()

    def _with_request_id(self, start: bytes) -> bytes:
        own = f"{REQUEST_ID_HEADER}: {self._request_id}\r\n\r\n"
        return start[:-2] + own.encode("latin-1")

    def _flush(self) -> None:
        self._connection.owner.answered(self._connection)

    def close(self) -> None:
        """Close the connection after this response."""
        self._keep_alive = False

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this response."""
        return not self._keep_alive


def _nothing() -> None:
    """Do nothing: the default of `HttpReply.expire`."""


HttpHandler: TypeAlias = "Callable[[HttpRequest, HttpReply], None]"
"""Completes the reply now or later; runs on the loop's thread and must not block."""


@lru_cache(maxsize=256)
def _head_form(status: int, content_type: str, headers: Headers, keep_alive: bool) -> bytes:
    """Return a response's head, with a placeholder for the body's length."""
    start = _head_start(status, content_type, headers, keep_alive).replace(b"%", b"%%")
    return start.replace(b"\r\n", b"\r\ncontent-length: %d\r\n", 1)


def _head_start(status: int, content_type: str, headers: Headers, keep_alive: bool) -> bytes:
    """Return a response's head without the header that says how long the body is."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Client Error"
    lines = [f"content-type: {content_type}", *(f"{name}: {value}" for name, value in headers)]
    if not keep_alive:
        lines.append("connection: close")
    fixed = "\r\n".join(lines)
    return f"HTTP/1.1 {status} {phrase}\r\n{fixed}\r\n\r\n".encode("latin-1")
