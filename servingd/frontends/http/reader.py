"""Reads one client's requests from bytes, by httptools, within limits."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

import httptools

from servingd.frontends.http.heads import KnownHeads
from servingd.frontends.http.messages import HttpRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one client may make the server hold or wait for."""

    max_body_bytes: int = 256 << 20
    max_head_bytes: int = 64 << 10
    max_headers: int = 128
    max_url_bytes: int = 16 << 10
    max_pipelined: int = 32
    max_connections: int = 10_000
    head_s: float = 20.0
    """From a request's first byte to the end of its headers."""
    progress_s: float = 30.0
    """For each `progress_bytes` of a body, or of an answer that the client takes too slowly."""
    progress_bytes: int = 32 << 10
    idle_s: float = 120.0
    """Between two requests."""
    sweep_s: float = 0.5
    """How often connections are looked through for time that is used up."""


class Refused(Exception):
    """A request breaks a rule or a limit: it is to be answered so, and the connection to end."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Upgraded(Exception):
    """What follows the last request is of another protocol: a tunnel was asked for."""


class Client(Protocol):
    """Whose requests are read."""

    deadline: float
    """When it has used its time up, in monotonic seconds; renewed as its request goes on."""

    def take(self, request: HttpRequest, keep_alive: bool) -> None:
        """A request is whole."""
        ...

    def send_100_continue(self) -> None:
        """It waits for leave to send a body."""
        ...


_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def _origin_form(target: str) -> str:
    """A target without the scheme and host that it may have: proxies' clients send them along."""
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
    """Headers beyond the first of their name."""
    head_over: bool = False
    length: int = 0
    """What the body is announced to have; 0 if nobody says."""
    body: bytes = b""
    more_body: BytesIO | None = None
    """The whole body, if it comes in several pieces."""
    body_bytes: int = 0
    timed_bytes: int = 0
    """How much of the body had come when its time was last renewed."""
    idle_bytes: int = 0
    """What came since the body last grew: headers, the frames of chunks, trailers."""


class RequestReader:
    """Turns bytes into requests and hands them to their client."""

    def __init__(self, client: Client, limits: HttpLimits, heads: KnownHeads) -> None:
        self._client = client
        self._limits = limits
        self._heads = heads  # what is read here is learnt; its client looks there first
        self._last: HttpRequest | None = None  # that the parser has read to its end, and goes on
        self._parser = httptools.HttpRequestParser(self)
        self._incoming: _Incoming | None = None
        self.receiving = False
        """Whether a request has begun and is not whole."""
        self._telling = False  # whether the parser is told what an earlier one has read

    def feed(self, data: bytes | memoryview) -> None:
        """Read on. Raises Refused or Upgraded; there is nothing to be read after that."""
        incoming = self._incoming
        if incoming is not None:
            before = incoming.body_bytes
            self._parse(data)
            if incoming is self._incoming:
                self._went_on(incoming, before, len(data))
            return
        self._last = None
        self._parse(data)
        if isinstance(data, bytes) and not self.receiving:  # else it may be a piece of several
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        if self._last is not None:
            self._heads.learn(data, self._last)

    def _parse(self, data: bytes | memoryview) -> None:
        """Read on; offers of another protocol are ignored, as the protocol allows.

        Clients make them with requests that they want answered whatever comes of it (Java's, and
        `curl --http2`). The parser stops after the head of such a request: a new one goes on.
        """
        while True:
            try:
                self._feed(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._parser.get_method() == b"CONNECT":
                    raise Upgraded from upgrade
                self._begin_anew()
                data = data[upgrade.args[0] :]
                if data:
                    continue
            return

    def _begin_anew(self) -> None:
        """Go on with a new parser; it is told what is to be known of a body that is to come."""
        method, version = self._parser.get_method(), self._parser.get_http_version()
        self._parser = httptools.HttpRequestParser(self)
        incoming = self._incoming
        if incoming is None:
            return
        headers = incoming.headers
        chunked = "transfer-encoding" in headers
        frame = "transfer-encoding: chunked" if chunked else f"content-length: {incoming.length}"
        close = "connection: close\r\n" if "close" in headers["connection"].lower() else ""
        self._telling = True
        self._feed(
            b"%b / HTTP/%b\r\n%b\r\n%b\r\n"
            % (method, version.encode(), frame.encode(), close.encode())
        )
        self._telling = False

    def _feed(self, data: bytes | memoryview) -> None:
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
        """How many bytes certainly belong to the request that is being received."""
        incoming = self._incoming
        return 0 if incoming is None else incoming.length - incoming.body_bytes

    # httptools ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._telling:
            return
        self._incoming = _Incoming()
        self.receiving = True
        self._client.deadline = time.monotonic() + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        if self._telling:
            return
        incoming = self._current()
        incoming.target += url
        if len(incoming.target) > self._limits.max_url_bytes:
            raise Refused(414, f"the URL is longer than {self._limits.max_url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer: those count, and mean nothing."""
        if self._telling:
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
        """What the headers announce is refused before it is received."""
        if self._telling:
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
        """A piece of its body."""
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
        """The request is whole: hand it over."""
        incoming = self._current()
        offers = self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"
        if offers and (incoming.length or "transfer-encoding" in incoming.headers):
            return  # the parser does not look for a body behind an offer
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
        self._last = request if keep_alive else None
        self._client.take(request, keep_alive)

    # ours -----------------------------------------------------------------------------------------

    def _went_on(self, incoming: _Incoming, before: int, size: int) -> None:
        """A request goes on: its body must grow for it to have more time, and more bytes."""
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
