"""Read one client's requests from bytes, by httptools, within limits."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

import httptools

from servingd.frontends.http.heads import KnownHeads
from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.messages import HttpRequest


class Refused(Exception):
    """A request breaks a rule or a limit: answer with this status, then close the connection."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Upgraded(Exception):
    """The client asked for a tunnel: the bytes after the last request are not HTTP."""


class Client(Protocol):
    """The receiver of the requests."""

    deadline: float
    """Monotonic seconds after which it is closed; renewed while its request makes progress."""

    def take(self, request: HttpRequest, keep_alive: bool) -> None:
        """Take a whole request."""
        ...

    def send_100_continue(self) -> None:
        """Tell the client to send its body."""
        ...


_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def _origin_form(target: str) -> str:
    """Return a target without scheme and host, which clients of proxies send."""
    if target[:1] == "/":
        return target
    path = _ABSOLUTE.sub("", target, count=1)
    return path if path == target or path[:1] == "/" else f"/{path}"


@dataclass(slots=True, eq=False)
class _Incoming:
    """The request that is being received."""

    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    head_bytes: int = 0
    repeated: int = 0
    """The number of headers whose name came before."""
    head_over: bool = False
    length: int = 0
    """The body's announced bytes; 0 if they are not announced."""
    body: bytes = b""
    more_body: BytesIO | None = None
    """The whole body, if it arrives in several pieces."""
    body_bytes: int = 0
    timed_bytes: int = 0
    """Bytes of the body when the deadline was last renewed."""
    idle_bytes: int = 0
    """Bytes since the body last grew: headers, chunk frames, trailers."""


class RequestReader:
    """Turns bytes into requests and hands them to their client."""

    def __init__(self, client: Client, limits: HttpLimits, heads: KnownHeads) -> None:
        self._client = client
        self._limits = limits
        self._heads = heads  # filled here; the client looks a request up before it is parsed
        self._last: HttpRequest | None = None  # the last whole one, if its connection is kept alive
        self._parser = httptools.HttpRequestParser(self)
        self._incoming: _Incoming | None = None
        self.receiving = False
        """Whether a request has begun and is not complete."""
        self._feeding_head = False  # whether the parser is being fed the made-up head

    def feed(self, data: bytes | memoryview) -> None:
        """Parse more bytes. Raises Refused or Upgraded; nothing may be fed after that."""
        incoming = self._incoming
        if incoming is not None:
            before = incoming.body_bytes
            self._parse(data)
            if incoming is self._incoming:
                self._check_progress(incoming, before, len(data))
            return
        self._last = None
        self._parse(data)
        if isinstance(data, bytes) and not self.receiving:  # a memoryview is a piece of held data
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        if self._last is not None:
            self._heads.learn(data, self._last)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse more bytes; offers of another protocol are ignored, as HTTP allows.

        Clients make them with requests that they want answered in any case (Java's, and
        `curl --http2`). The parser stops after the head of such a request: a new parser continues.
        """
        while True:
            try:
                self._feed(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._parser.get_method() == b"CONNECT":
                    raise Upgraded from upgrade
                self._replace_parser()
                data = data[upgrade.args[0] :]
                if data:
                    continue
            return

    def _replace_parser(self) -> None:
        """Continue with a new parser, which is fed a made-up head that announces the same body."""
        method, version = self._parser.get_method(), self._parser.get_http_version()
        self._parser = httptools.HttpRequestParser(self)
        incoming = self._incoming
        if incoming is None:
            return
        headers = incoming.headers
        chunked = "transfer-encoding" in headers
        frame = "transfer-encoding: chunked" if chunked else f"content-length: {incoming.length}"
        close = "connection: close\r\n" if "close" in headers["connection"].lower() else ""
        self._feeding_head = True
        self._feed(
            b"%b / HTTP/%b\r\n%b\r\n%b\r\n"
            % (method, version.encode(), frame.encode(), close.encode())
        )
        self._feeding_head = False

    def _feed(self, data: bytes | memoryview) -> None:
        """Feed the parser, and translate its exceptions."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            raise Refused(400, f"malformed request: {error}") from error

    def drop(self) -> None:
        """Forget the request that is being received."""
        self._incoming = None
        self.receiving = False

    def body_left(self) -> int:
        """Return how many more bytes surely belong to the request that is being received."""
        incoming = self._incoming
        return 0 if incoming is None else incoming.length - incoming.body_bytes

    # Called by httptools --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._feeding_head:
            return
        self._incoming = _Incoming()
        self.receiving = True
        self._client.deadline = time.monotonic() + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        """Add a piece of the target."""
        if self._feeding_head:
            return
        incoming = self._current()
        incoming.target += url
        if len(incoming.target) > self._limits.max_url_bytes:
            raise Refused(414, f"the URL is longer than {self._limits.max_url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer only counts towards the limits."""
        if self._feeding_head:
            return
        incoming = self._current()
        incoming.head_bytes += len(name) + len(value)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = incoming.headers
        if key not in headers and not incoming.head_over:
            headers[key] = text
        else:
            incoming.repeated += 1
            if key == "host":
                raise Refused(400, "a request has one Host")
            if not incoming.head_over:
                headers[key] += f",{text}"
        limits = self._limits
        if (
            len(headers) + incoming.repeated > limits.max_headers
            or incoming.head_bytes > limits.max_head_bytes
        ):
            raise Refused(431, "the request's headers are too many or too long")

    def on_headers_complete(self) -> None:
        """Check the headers, and refuse a body before it is received."""
        if self._feeding_head:
            return
        incoming = self._current()
        incoming.head_over = True
        headers = incoming.headers
        self._client.deadline = time.monotonic() + self._limits.progress_s
        if "content-length" in headers:
            incoming.length = int(headers["content-length"])
            if incoming.length > self._limits.max_body_bytes:
                raise self._too_large(incoming.length)
        elif headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise Refused(501, "a body may be chunked, and nothing else")
        if "host" not in headers and self._parser.get_http_version() != "1.0":
            raise Refused(400, "a request of HTTP/1.1 has a Host")
        if headers.get("expect", "").lower() == "100-continue":
            self._client.send_100_continue()

    def on_body(self, body: bytes) -> None:
        """Add a piece of the body."""
        incoming = self._current()
        if not incoming.body_bytes:
            incoming.body = body
        else:
            if incoming.more_body is None:
                incoming.more_body = BytesIO()
                incoming.more_body.write(incoming.body)
            incoming.more_body.write(body)
        incoming.body_bytes += len(body)
        if incoming.body_bytes > self._limits.max_body_bytes:
            raise self._too_large(incoming.body_bytes)

    def on_message_complete(self) -> None:
        """Hand over the complete request."""
        incoming = self._current()
        offers = self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"
        if offers and (incoming.length or "transfer-encoding" in incoming.headers):
            return  # after an offer to upgrade the parser ends the message before its body
        self._incoming = None
        self.receiving = False
        more = incoming.more_body
        request = HttpRequest(
            self._parser.get_method().decode(),
            _origin_form(incoming.target.decode("latin-1")),
            incoming.headers,
            incoming.body if more is None else more.getvalue(),
        )
        keep_alive = self._parser.should_keep_alive()
        request.takes_chunks = self._parser.get_http_version() != "1.0"
        self._last = request if keep_alive and request.takes_chunks else None
        self._client.take(request, keep_alive)

    # Limits ---------------------------------------------------------------------------------------

    def _check_progress(self, incoming: _Incoming, before: int, size: int) -> None:
        """Renew the deadline and check limits: the body must grow by `progress_bytes` in time."""
        limits = self._limits
        incoming.idle_bytes = incoming.idle_bytes + size if incoming.body_bytes == before else 0
        if incoming.idle_bytes > 2 * limits.max_head_bytes:
            raise Refused(431, "the request's headers are too long")
        if incoming.body_bytes - incoming.timed_bytes >= limits.progress_bytes:
            incoming.timed_bytes = incoming.body_bytes
            self._client.deadline = time.monotonic() + limits.progress_s

    def _current(self) -> _Incoming:
        if self._incoming is None:
            raise Refused(400, "malformed request")
        return self._incoming

    def _too_large(self, size: int) -> Refused:
        return Refused(413, f"the body is larger than {self._limits.max_body_bytes} bytes ({size})")
