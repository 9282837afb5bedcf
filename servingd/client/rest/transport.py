"""Calls over HTTP/1.1: connections that are kept, and what their failures mean."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from servingd.client.address import Address
from servingd.client.calls import Send
from servingd.client.hints import retry_after_s
from servingd.client.rest.api import LINES, error_of
from servingd.client.settings import Settings, Tls
from servingd.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable

_KEPT = 32
"""Connections that are kept for later calls, if `connections` is not more."""
_PIECE = 1 << 20
_WORTH_COMPRESSING = 1024
"""Bytes of a body."""

_OTHER_PORT = "if it always does, is it the gRPC port, or encrypted?"


class Cancellation:
    """Breaks off a call from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None  # guarded by _lock
        self._cancelled = False  # guarded by _lock

    def watch(self, used: socket.socket) -> None:
        """Take note of the socket that the call uses now."""
        with self._lock:
            self._socket = used
            if self._cancelled:
                _shut(used)

    def release(self) -> None:
        """Forget the socket, before another call may use it."""
        with self._lock:
            self._socket = None

    def cancel(self) -> None:
        """Break off the call: whoever waits for it gets an error."""
        with self._lock:
            self._cancelled = True
            if self._socket is not None:
                _shut(self._socket)


class RestTransport:
    """Sends calls, each on a connection that no other call uses meanwhile. Thread-safe."""

    def __init__(self, address: Address, settings: Settings) -> None:
        """Connect at the first call. Raises OSError for files of TLS that cannot be read."""
        self._address = address
        self._settings = settings
        self._context = None if settings.tls is None else _context(settings.tls)
        self._lock = threading.Lock()
        self._idle: deque[http.client.HTTPConnection] = deque()  # guarded by _lock
        self._open: set[http.client.HTTPConnection] = set()  # guarded by _lock; also those in use
        self._closed = False  # guarded by _lock

    def send(self, command: Send) -> Any:
        """Send a call; return its answer, or a stream whose first part has come.

        Raises the ServingError of the HTTP status, DeadlineExceeded, or Unavailable.
        """
        return self.send_until(deadline_of(command), command, Cancellation())

    def send_until(self, deadline: float | None, command: Send, cancellation: Cancellation) -> Any:
        """Send a call that was made earlier, and has the deadline of then. Raises as `send`."""
        while True:
            connection, is_new = self._take()
            exchange = _Exchange(self, connection, command, deadline, cancellation)
            try:
                exchange.ask(self._settings, self._address.prefix)
            except (ConnectionError, http.client.BadStatusLine) as error:
                self.drop(connection)
                if is_new or not command.call.may_repeat or not _broke(error):
                    raise self.failure(error, command) from error
            except BaseException as error:
                self.drop(connection)
                raise self.failure(error, command) from error
            else:
                return self._answer(exchange, command)

    def _answer(self, exchange: _Exchange, command: Send) -> Any:
        """Return the answer of a call that was asked."""
        try:
            if command.call.is_stream and exchange.response.status == 200:
                return RestParts(self, exchange, command)
            body = exchange.body()
        except BaseException as error:
            exchange.drop()
            raise self.failure(error, command) from error
        exchange.keep()
        status = exchange.response.status
        if 200 <= status < 300 or status in command.call.also_answers:
            return body
        failure = error_of(status, body)
        headers = exchange.response.headers
        failure.retry_after_s = retry_after_s((k.lower(), v) for k, v in headers.items())
        failure.request_id = headers.get("x-request-id")
        raise failure

    def close(self) -> None:
        """Close all connections; calls under way fail."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
            in_use = [found.sock for found in self._open if found not in idle and found.sock]
        for connection in idle:
            self.drop(connection)
        for used in in_use:
            _shut(used)

    # Connections ----------------------------------------------------------------------------------

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return a connection, and whether it is new. They are used in turns."""
        with self._lock:
            if self._closed:
                raise FailedPrecondition("the client is closed")
            if len(self._open) >= self._settings.connections:
                while self._idle:
                    connection = self._idle.popleft()
                    if not _has_ended(connection):
                        return connection, False
                    connection.close()
                    self._open.remove(connection)
            connection = self._new()
            self._open.add(connection)
            return connection, True

    def _new(self) -> http.client.HTTPConnection:
        """Return a connection that will be made."""
        host, port = self._address.host, self._address.port
        if self._context is None:
            return http.client.HTTPConnection(host, port)
        name = (self._settings.tls and self._settings.tls.server_name) or host
        return _Encrypted(host, port, self._context, name)

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next call."""
        with self._lock:
            if not self._closed and len(self._idle) < max(_KEPT, self._settings.connections):
                self._idle.append(connection)
                return
        self.drop(connection)

    def drop(self, connection: http.client.HTTPConnection) -> None:
        """Close a connection that is not used any more."""
        connection.close()
        with self._lock:
            self._open.discard(connection)

    def failure(self, error: BaseException, command: Send) -> BaseException:
        """Return what a failed exchange means to callers; what is no failure of one, as it is."""
        import ssl

        place = self._address.place
        if isinstance(error, TimeoutError) and error.errno is None:  # else it is the kernel's
            return DeadlineExceeded(f"{place} did not answer within {command.timeout_s:g} s")
        if isinstance(error, ssl.SSLError):
            return Unavailable(f"no encrypted connection to {place}: {error}")
        if isinstance(error, ConnectionRefusedError | socket.gaierror):
            return Unavailable(f"nobody listens at {place}: {error.strerror}")
        if isinstance(error, http.client.BadStatusLine) and not _broke(error):
            return Unavailable(f"{place} does not speak HTTP/1; {_OTHER_PORT}")
        if isinstance(error, ConnectionResetError):
            return Unavailable(f"{place} ended the connection; {_OTHER_PORT}")
        if isinstance(error, OSError | http.client.HTTPException):
            return Unavailable(f"the connection to {place} broke: {error}")
        if isinstance(error, ValueError):
            return InvalidArgument(f"no HTTP request: {error}")
        return error


class _Exchange:
    """One request and its response, on one connection, within a deadline."""

    def __init__(
        self,
        pool: RestTransport,
        connection: http.client.HTTPConnection,
        command: Send,
        deadline: float | None,
        cancellation: Cancellation,
    ) -> None:
        self._pool = pool
        self._cancellation = cancellation
        self._connection = connection
        self._step = command
        self._deadline = deadline
        self.response: http.client.HTTPResponse
        self._socket: socket.socket
        self._ahead = b""  # what was read behind the last line

    def ask(self, settings: Settings, prefix: str) -> None:
        """Send the request and wait for the head of the response."""
        connection, call = self._connection, self._step.call
        if connection.sock is None:
            connection.timeout = self._left_s()
            connection.connect()
            _watch_silence(connection, settings.keepalive_s)
        self._socket = connection.sock
        self._cancellation.watch(self._socket)
        self._hurry()
        headers = dict((*call.headers, *self._step.headers))
        body = call.body
        if settings.compression is not None and not call.is_stream:
            headers["accept-encoding"] = "gzip"
            if body is not None and len(body) > _WORTH_COMPRESSING:
                import gzip

                body = gzip.compress(body, compresslevel=1)
                headers["content-encoding"] = "gzip"
        connection.request(call.verb, prefix + call.path, body, headers)
        self._hurry()
        self.response = connection.getresponse()

    def body(self) -> bytes:
        """Return the body, inflated."""
        pieces = []
        while True:
            self._hurry()
            piece = self.response.read1(_PIECE)
            if not piece:
                break
            pieces.append(piece)
        if self.response.length:  # reading piece by piece does not tell
            raise http.client.IncompleteRead(b"", self.response.length)
        content = b"".join(pieces)
        if self.response.headers.get("content-encoding") == "gzip":
            import gzip

            content = gzip.decompress(content)
        return content

    def line(self) -> bytes:
        """Return the next line of the body; nothing at its end.

        The response's own `readline` takes a body that is cut off for one that has ended.
        """
        pieces = [self._ahead]
        while b"\n" not in pieces[-1]:
            self._hurry()
            piece = self.response.read1(_PIECE)
            if not piece:
                break
            pieces.append(piece)
        line, end, self._ahead = b"".join(pieces).partition(b"\n")
        return line + end

    def keep(self) -> None:
        """Give the connection back after the whole body has been read."""
        self._cancellation.release()
        self.response.close()  # of the connection, only the response knows that it has ended
        if self.response.will_close:
            self.drop()
        else:
            self._pool.keep(self._connection)

    def drop(self) -> None:
        """Close the connection."""
        self.response.close()
        self._pool.drop(self._connection)

    def _left_s(self) -> float | None:
        if self._deadline is None:
            return None
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _hurry(self) -> None:
        """Limit the next operations on the socket to the time that is left. Raises TimeoutError."""
        self._socket.settimeout(self._left_s())


class RestParts:
    """A stream that has begun: an iterator over its parts. For one thread at a time."""

    def __init__(self, pool: RestTransport, exchange: _Exchange, command: Send) -> None:
        """Wait for the first part. Raises what the exchange raises."""
        self._pool = pool
        self._exchange = exchange
        self._step = command
        self._in_lines = LINES in exchange.response.headers.get("content-type", "")
        self._lock = threading.Lock()
        self._ended = False  # guarded by _lock: another thread may close the stream
        self._next: bytes | None = self._read()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the parts. Raises Unavailable or DeadlineExceeded."""
        while self._next:
            part = self._next
            self._next = None  # read when it is asked for, no earlier
            yield part
            try:
                self._next = self._read()
            except Exception as error:
                self.close()
                raise self._pool.failure(error, self._step) from error

    def close(self) -> None:
        """End the stream: the server sees the connection closed. Nothing if it has ended."""
        if self._ends():
            self._exchange.drop()

    def _read(self) -> bytes | None:
        """Return the next part; None at the end, when the connection is given back."""
        if self._ended:
            return None
        if not self._in_lines:  # whoever does not stream answers as a whole
            body = self._exchange.body()
            self._end()
            return body
        line = b"\n"
        while line.isspace():
            line = self._exchange.line()
        if not line:
            self._end()
        return line or None

    def _end(self) -> None:
        if self._ends():
            self._exchange.keep()

    def _ends(self) -> bool:
        """End the stream; return False if it has ended."""
        with self._lock:
            ended, self._ended = self._ended, True
        return not ended


class _Encrypted(http.client.HTTPConnection):
    """A connection with TLS, to a server whose name need not be that of the address."""

    default_port = 443

    def __init__(self, host: str, port: int | None, context: Any, name: str) -> None:
        super().__init__(host, port)
        self._context = context
        self._name = name

    def connect(self) -> None:
        super().connect()
        plain = self.sock
        try:
            self.sock = self._context.wrap_socket(plain, server_hostname=self._name)
        except BaseException:
            plain.close()
            raise


def deadline_of(command: Send) -> float | None:
    """Return until when a call that is made now may take, on the monotonic clock; None: no end."""
    return None if command.timeout_s is None else time.monotonic() + command.timeout_s


def _context(tls: Tls) -> Any:
    import ssl

    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def _broke(error: BaseException) -> bool:
    """Return whether a connection ended before there was an answer."""
    return isinstance(error, ConnectionError)  # also of http.client's own


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Return whether the server has closed an idle connection, as far as can be seen."""
    used = connection.sock
    if used is None:
        return True
    if isinstance(connection, _Encrypted):  # TLS may have sent what is no answer
        return False
    if not hasattr(select, "poll"):
        return bool(select.select([used], [], [], 0)[0])
    poll = select.poll()  # `select` takes no descriptors above 1023
    poll.register(used, select.POLLIN)
    return bool(poll.poll(0))


def _watch_silence(connection: http.client.HTTPConnection, keepalive_s: float) -> None:
    """Have the kernel ask whether the server is still there."""
    used: socket.socket = connection.sock
    if keepalive_s > 0:
        used.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            seconds = max(1, int(keepalive_s))
            used.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)


def _shut(used: socket.socket) -> None:
    with contextlib.suppress(OSError):
        used.shutdown(socket.SHUT_RDWR)
