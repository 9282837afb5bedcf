"""One end of the socket between supervisor and worker: messages with their length before them."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from servingd.supervisor.link.messages import decode, encode

_LENGTH = struct.Struct("!I")
_MOST_WAITING = 100_000
"""Messages that may wait to be written: the other side reads none any more."""

_log = logging.getLogger(__name__)


class Channel:
    """Owns a socket, the thread `NAME-reader` and the thread `NAME-writer`.

    `send` from any thread. `received` is called by the reader, and `closed` once, at its end.
    """

    def __init__(
        self,
        name: str,
        connection: socket.socket,
        received: Callable[[Any], None],
        closed: Callable[[], None],
    ) -> None:
        self._socket = connection
        self._received = received
        self._closed = closed
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._using = 2  # threads that use the socket; guarded by _lock
        self._threads = [
            threading.Thread(target=self._read, name=f"{name}-reader", daemon=True),
            threading.Thread(target=self._write, name=f"{name}-writer", daemon=True),
        ]

    def start(self) -> None:
        """Start to read and write."""
        for thread in self._threads:
            thread.start()

    def send(self, message: object) -> bool:
        """Enqueue a message; return False if too many wait. After `close` it is dropped."""
        data = encode(message)
        try:
            self._waiting.put_nowait(_LENGTH.pack(len(data)) + data)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Close the socket; the threads end."""
        with contextlib.suppress(OSError, queue.Full):
            self._waiting.put_nowait(None)
        with contextlib.suppress(OSError, queue.Full):
            self._socket.shutdown(socket.SHUT_RDWR)

    def finish(self, timeout_s: float) -> None:
        """Write what waits, and close the socket."""
        with contextlib.suppress(OSError, queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._threads[1].join(timeout_s)
        self.close()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
                    (length,) = _LENGTH.unpack(head)
                    data = stream.read(length)
                    if len(data) < length:
                        break
                    try:
                        self._received(decode(data))
                    except BaseException:  # one message must not end the others
                        _log.exception("a message could not be taken")
        except OSError:
            pass  # the other end is gone, as at the end of a stream
        self._leave()
        self._closed()

    def _write(self) -> None:
        try:
            while (data := self._waiting.get()) is not None:
                self._socket.sendall(data)
        except OSError:
            pass  # the reader finds the same
        self._leave()

    def _leave(self) -> None:
        """Close the socket with the last thread that uses it."""
        with self._lock:
            self._using -= 1
            last = not self._using
        if last:
            self._socket.close()
