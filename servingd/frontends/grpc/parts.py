"""Answers in parts over grpcio: a generator on a thread of its own, which waits for parts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import grpc

from servingd.core.batching.queue import Priority
from servingd.core.callbacks import nothing
from servingd.errors import Code
from servingd.frontends.reply import (
    AUTHORIZATION_HEADER,
    MOST_PARTS,
    PRIORITY_HEADER,
    REQUEST_ID_HEADER,
    PartsHandler,
    priority_of,
    request_id_in,
)
from servingd.frontends.status_codes import answer_metadata, grpc_message

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class InFlight(Protocol):
    """Counts the calls that a server has in hand."""

    def enter(self) -> bool:
        """Count a call; return False if no more calls are accepted."""
        ...

    def leave(self) -> None:
        """Uncount a call."""
        ...


class _StreamReply:
    """A call of grpcio that is answered in parts; see `PartsReply`."""

    alone = False

    def __init__(self, context: grpc.ServicerContext, deadline: float | None) -> None:
        self._context = context
        self.deadline = deadline
        self._changed = threading.Condition()
        self._parts: deque[bytes] = deque()  # guarded by _changed, as all below
        self._over = False  # ended, failed or gone: no further part is taken
        self._gone = False
        self._wake: Callable[[], None] = nothing
        self.code = Code.OK
        self.message = ""

    def priority(self) -> Priority:
        return priority_of(self._metadata(PRIORITY_HEADER))

    def authorization(self) -> str:
        return self._metadata(AUTHORIZATION_HEADER)

    def request_id(self) -> str:
        return request_id_in(self._context.invocation_metadata())

    def _metadata(self, key: str) -> str:
        found = self._context.invocation_metadata()
        return next((str(entry[1]) for entry in found if entry[0] == key), "")

    def alive(self) -> bool:
        return not self._over and (self.deadline is None or time.monotonic() < self.deadline)

    def begin_batch(self) -> None:
        """Do nothing: each part wakes the thread that waits for it."""

    def wants_part(self) -> bool:
        return len(self._parts) < MOST_PARTS

    def watch(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def send(self, payload: bytes) -> bool:
        return self.send_part(payload) and self.end()

    def send_part(self, payload: bytes) -> bool:
        with self._changed:
            if self._over:
                return False
            self._parts.append(payload)
            self._changed.notify()
            return True

    def end(self) -> bool:
        return self._end(Code.OK, "")

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        metadata = answer_metadata(self._context.invocation_metadata(), retry_after_s)
        if metadata and not self._over:
            self._context.set_trailing_metadata(metadata)
        return self._end(code, grpc_message(message))

    def _end(self, code: Code, message: str) -> bool:
        with self._changed:
            if self._over:
                return False
            self._over = True
            self.code, self.message = code, message
            self._changed.notify()
        self._wake()
        return True

    def gone(self) -> None:
        """Mark the call as cancelled, expired or over; called by grpcio on any thread."""
        with self._changed:
            self._over = self._gone = True
            self._parts.clear()
            self._changed.notify()
        self._wake()

    def parts(self) -> Iterator[bytes]:
        """Yield the parts until the answer is over; on the servicer's thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts or self._over, self._left())
                if not self._parts:
                    return
                part = self._parts.popleft()
            self._wake()
            yield part

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def status(self) -> tuple[Code, str]:
        """Return how the answer ended, once there are no more parts."""
        with self._changed:
            if self._over:
                return self.code, self.message
        return Code.DEADLINE_EXCEEDED, "Deadline Exceeded"


class StreamThreads:
    """The threads of answers in parts: each is held until its client has the last part.

    They are none of the threads of unary calls, so slow readers keep nobody from those.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = threading.Semaphore(most)
        # Some more, which tell callers that there are too many.
        self._threads = ThreadPoolExecutor(most + 16, thread_name_prefix="grpcio-stream")

    def shutdown(self) -> None:
        """Start no more threads."""
        self._threads.shutdown(wait=False)

    def method(self, handler: PartsHandler, in_flight: InFlight) -> Any:
        """Return grpcio's method handler on raw bytes."""

        def call(payload: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            if not in_flight.enter():
                context.abort(grpc.StatusCode.UNAVAILABLE, "server is shutting down")
            try:
                if not self._free.acquire(blocking=False):
                    text = f"{self._most} answers are being streamed already"
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
                try:
                    yield from _answer(handler, payload, context)
                finally:
                    self._free.release()
            finally:
                in_flight.leave()

        # grpcio calls this experimental; without it streams would share the threads of unary calls.
        call.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return grpc.unary_stream_rpc_method_handler(call)


def _answer(
    handler: PartsHandler, payload: bytes, context: grpc.ServicerContext
) -> Iterator[bytes]:
    """Let the handler answer one call; yield its parts, and end with its status."""
    left = context.time_remaining()
    bounded = left is not None and left < threading.TIMEOUT_MAX  # grpcio may give centuries
    reply = _StreamReply(context, time.monotonic() + left if bounded else None)
    if not context.add_callback(reply.gone):
        return  # it was cancelled already
    own = [e for e in context.invocation_metadata() if e[0] == REQUEST_ID_HEADER]
    if own:
        context.send_initial_metadata(own)
    handler(payload, reply)
    try:
        yield from reply.parts()
        code, message = reply.status()
        if code is not Code.OK:
            context.abort(_CODES[code], message)
    finally:
        reply.gone()  # whatever ends the call ends its stream
