"""A response's body that is written in parts, as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable

from servingd.core.callbacks import nothing

_LAST_CHUNK = b"0\r\n\r\n"


class PartedBody:
    """Parts that wait to be written. Filled by any thread, emptied by the loop's.

    Whoever makes the parts stops while many are `waiting`, and goes on when it is woken: so a
    client that reads slowly makes it wait. Parts are taken only as the client reads them.
    """

    def __init__(self, chunked: bool, written: Callable[[], None]) -> None:
        """`chunked`: each part is a chunk; else the body ends with its connection.

        `written` has the loop write what there is.
        """
        self._chunked = chunked
        self._written = written
        self._wake: Callable[[], None] = nothing
        self._lock = threading.Lock()
        self._data: list[bytes] = []  # guarded by _lock, as all below
        self._ended = False
        self._lost = False

    def begin(self, head: bytes, *, whole: bool = False) -> None:
        """Send the response's head; before all parts. `whole`: that is all, as for HEAD."""
        with self._lock:
            self._data.append(head)
            self._ended = whole
        self._written()

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` when parts were taken, and when the body has ended or its client has gone.

        It is called on any thread and must not block.
        """
        self._wake = wake

    @property
    def waiting(self) -> int:
        """The number of parts that are not taken yet."""
        return len(self._data)

    def alive(self) -> bool:
        """Return whether further parts can be sent."""
        return not (self._ended or self._lost)

    def add(self, part: bytes) -> bool:
        """Send a part; return False if the body has ended or its client has gone."""
        with self._lock:
            if self._ended or self._lost:
                return False
            if part:
                self._data.append(self._framed(part))
        self._written()
        return True

    def end(self, part: bytes = b"") -> bool:
        """Send a last part, if there is one, and end the body; return as `add`."""
        with self._lock:
            if self._ended or self._lost:
                return False
            self._ended = True
            if part:
                self._data.append(self._framed(part))
            if self._chunked:
                self._data.append(_LAST_CHUNK)
        self._written()
        self._wake()
        return True

    def _framed(self, part: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part

    # The loop's thread ----------------------------------------------------------------------------

    def take(self) -> tuple[bytes, bool]:
        """Return all that waits, and whether the body ends with it."""
        with self._lock:
            data, self._data = self._data, []
            ended = self._ended
        if data and not ended:
            self._wake()
        return b"".join(data), ended

    def lose(self) -> None:
        """Drop everything: the client has gone."""
        with self._lock:
            self._lost = True
            self._data.clear()
        self._wake()
