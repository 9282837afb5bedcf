"""The fast gRPC transport: pygrpc-native does HTTP/2 outside the GIL, and batches calls.

All code that depends on that young package is in this file. It carries the plain-text unary calls
of the method table; every other method goes through a private socket to a grpcio server.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from servingd.core.batching.queue import Priority
from servingd.core.callbacks import nothing
from servingd.errors import Code
from servingd.frontends.gather import Gather, gather_nothing
from servingd.frontends.grpc.connection_age import ConnectionAge
from servingd.frontends.grpc.leaving import own_sockets, send_away, stop_listening
from servingd.frontends.grpc.response_buffer import PendingResponses, ResponseBuffer
from servingd.frontends.grpc.unread import LARGE_BYTES, Unread, UnreadLimits, connections_of
from servingd.frontends.reply import (
    AUTHORIZATION_HEADER,
    PRIORITY_HEADER,
    REQUEST_ID_HEADER,
    Handler,
    priority_of,
    request_id_in,
)
from servingd.frontends.status_codes import answer_metadata, grpc_message

_BATCH = 64
_WAKE_MS = 500
"""Milliseconds after which the drain thread wakes without work: `close` does not always wake it."""

_LOOK_S = 0.03
"""Seconds between two looks of `drain-1` at whether `drain-0` goes on."""
_STAND_BY_WAKE_MS = 20
"""Milliseconds after which `drain-1` looks whether `drain-0` goes on, while it stands in for it."""

_MAX_STREAMS = 256
_BACKLOG = 4096

_log = logging.getLogger(__name__)


def unusable_because() -> str | None:
    """Return why the transport cannot be used here; None if it can.

    A five-byte message prefix can make it reserve 4 GiB: where that is not possible, the process
    would abort.
    """
    try:
        import pygrpc_native  # noqa: F401
    except ImportError as error:
        return f"pygrpc-native cannot be imported: {error}"
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < 64 << 30:
        return f"the address space is limited to {limit} bytes"
    with contextlib.suppress(OSError), open("/proc/sys/vm/overcommit_memory") as file:
        if file.read().strip() == "2":
            return "memory is not overcommitted here (vm.overcommit_memory is 2)"
    return None


class _NativeReply:
    """A call of the native transport; see `Reply`."""

    __slots__ = (
        "_details",
        "_fail",
        "_responses",
        "_unread",
        "alone",
        "call",
        "deadline",
        "gone",
        "over",
    )

    def __init__(
        self,
        unread: Unread,
        responses: ResponseBuffer,
        fail: Callable[..., bool],
        call: int,
        details: Any,
    ) -> None:
        self._unread = unread
        self._responses = responses
        self._fail = fail
        self._details = details  # metadata, peer, seconds left
        self.call = call
        left = details[2]
        self.deadline = None if left is None else time.monotonic() + left
        self.alone = False  # whether no other call was received with it
        self.gone = False  # cancelled
        self.over = False  # answered

    def alive(self) -> bool:
        return not self.gone and (self.deadline is None or time.monotonic() < self.deadline)

    def priority(self) -> Priority:
        for name, value in self._details[0]:
            if name == PRIORITY_HEADER:
                return priority_of(value)
        return Priority.NORMAL

    def authorization(self) -> str:
        return next((str(e[1]) for e in self._details[0] if e[0] == AUTHORIZATION_HEADER), "")

    def request_id(self) -> str:
        return request_id_in(self._details[0])

    def begin_batch(self) -> Callable[[], None] | None:
        return self._responses.begin_batch()

    def send(self, payload: bytes) -> bool:
        self.over = True
        if len(payload) > LARGE_BYTES and not self._unread.admits(self._details[1], len(payload)):
            self.fail(Code.RESOURCE_EXHAUSTED, "too many answers to this client wait to be read")
            return False
        for entry in self._details[0]:
            if entry[0] == REQUEST_ID_HEADER:
                return self._responses.add_with_metadata(self.call, payload, [entry])
        return self._responses.add(self.call, payload)

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        self.over = True
        metadata = answer_metadata(self._details[0], retry_after_s)
        return self._fail(
            self.call, int(code), grpc_message(message), trailing_metadata=metadata or None
        )


class NativeTransport:
    """Owns the port and two threads. `bind`, `start` and `stop` once each, in this order.

    `drain-0` takes calls and runs cheap handlers itself: there is no other back-pressure on
    clients. While one of its handlers blocks, `drain-1` does this in its place: health, status and
    the calls of other models do not wait for a model that has turned slow.
    """

    def __init__(
        self,
        target: str,
        handlers: Mapping[str, Handler],
        fallback: str,
        limits: UnreadLimits | None = None,
        gather: Gather = gather_nothing,
        *,
        shares_port: bool = False,
        max_age_s: float = 0.0,
    ) -> None:
        """`shares_port`: other processes listen on the same port.

        `max_age_s`: seconds after which a client is sent to a new connection; 0: never.
        """
        self._shares_port = shares_port
        self._age = ConnectionAge(lambda: self._port, max_age_s) if max_age_s > 0 else None
        self._port = 0
        self._gather = gather
        self._unread = Unread(lambda: connections_of(self._port), limits or UnreadLimits())
        self._target = target
        self._names = list(handlers)
        self._handlers = list(handlers.values())
        self._fallback = fallback
        self._native: Any = None
        self._call_event: Any = None
        self._responses: ResponseBuffer
        self._draining = False  # written by stop, read by the drain thread
        self._replies: dict[int, _NativeReply] = {}  # of waiting calls; the drain threads only
        self._sweep_at = _MAX_STREAMS
        self._batch: deque[Any] = deque()  # what drain-0 has received; both take from its left
        self._taking = False  # whether drain-0 handles a batch
        self._answers: PendingResponses  # of drain-0
        self._flush_calls: Callable[[], None] = nothing  # of drain-0
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._drain, name="drain-0", daemon=True),
            threading.Thread(target=self._stand_by, name="drain-1", daemon=True),
        ]

    def bind(self) -> int:
        """Bind the port; clients that connect from now on wait. Raises OSError."""
        from pygrpc_native import EVENT_CALL, NativeGrpcFront

        try:
            self._native = NativeGrpcFront(
                self._target,
                [(name, False) for name in self._names],
                io_threads=1,
                call_details=True,
                max_concurrent_streams=_MAX_STREAMS,
                metrics=True,
                reuse_port=self._shares_port,
            )
        except Exception as error:
            raise OSError(f"cannot listen on {self._target}: {error}") from error
        self._call_event = EVENT_CALL
        self._responses = ResponseBuffer(self._native.respond)
        if self._fallback:
            self._native.set_fallback(self._fallback)
        port = self._port = int(self._native.bound_port or 0)
        if port:
            _deepen_backlog(port)
        return port

    def start(self) -> None:
        """Start to answer calls."""
        self._native.start()
        if self._age is not None:
            self._age.start()
        for thread in self._threads:
            thread.start()

    def leave(self, deadline: float) -> None:
        """Accept no more clients, and tell those there are to go elsewhere for further calls."""
        stop_listening(self._port)
        send_away(self._port, deadline)

    def connections(self) -> int:
        """Return the number of clients that are connected."""
        return len(connections_of(self._port))

    def refuse(self) -> None:
        """Answer every new call with UNAVAILABLE from now on."""
        self._draining = self._unread.stopping = True

    def wait_idle(self, deadline: float) -> bool:
        """Wait until every response is sent, at most until `deadline` (monotonic seconds)."""
        pause = threading.Event()
        while self._in_flight():
            self._unread.tick()
            if time.monotonic() >= deadline:
                return False
            pause.wait(0.01)
        return True

    def stop(self) -> None:
        """Close the port and end the threads; calls in flight are cut off."""
        self._closing.set()
        if self._age is not None:
            self._age.stop()
        self._native.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(2 + _WAKE_MS / 1000)

    def _in_flight(self) -> int:
        methods = self._native.metrics()["methods"].values()
        return sum(
            m["started"] - sum(status["count"] for status in m["status"].values()) for m in methods
        )

    def _drain(self) -> None:
        """Take calls in batches until the transport is closed; the main loop of `drain-0`."""
        receive = self._native.recv_batch_details
        answers = self._answers = self._responses.open()
        flush_calls = self._flush_calls = self._gather()
        while (events := receive(_BATCH, _WAKE_MS)) is not None:
            self._batch = batch = deque(events)
            del events  # else the last batch stays in memory
            self._taking = True
            answers.begin()
            self._take(batch)
            flush_calls()
            answers.flush()
            self._taking = False
            self._unread.tick()

    def _stand_by(self) -> None:
        """Take calls while a handler blocks `drain-0`; the main loop of `drain-1`."""
        seen: tuple[deque[Any], int] | None = None
        while not self._closing.wait(_LOOK_S):
            batch, left = seen_now = self._batch, len(self._batch)
            if self._taking and seen is not None and seen[0] is batch and seen[1] == left:
                self._flush_calls()
                self._answers.flush()
                self._take_while_blocked(batch)
            seen = seen_now

    def _take_while_blocked(self, batch: deque[Any]) -> None:
        """Take the rest of the batch that `drain-0` is stuck in, and what comes meanwhile."""
        self._take(batch)
        receive = self._native.recv_batch_details
        while self._taking and self._batch is batch and not self._closing.is_set():
            events = receive(_BATCH, _STAND_BY_WAKE_MS)
            if events is None:
                return
            self._take(deque(events))

    def _take(self, batch: deque[Any]) -> None:
        """Call the handlers of a batch of calls, and handle cancellations."""
        call_event, handlers = self._call_event, self._handlers
        responses, fail, unread = self._responses, self._native.fail, self._unread
        alone = len(batch) == 1
        while batch:
            try:
                kind, call, method, payload, _, details = batch.popleft()
            except IndexError:  # the other thread was quicker
                return
            try:
                if kind != call_event:
                    self._cancelled(call)
                    continue
                reply = _NativeReply(unread, responses, fail, call, details)
                reply.alone = alone
                if self._draining or details[2] == 0.0:
                    self._refuse(reply)
                    continue
                handlers[method](payload, reply)
                if not reply.over:
                    self._remember(reply)
            except BaseException:  # one bad call must not end service
                _log.exception("the native transport failed on a call")
                fail(call, int(Code.INTERNAL), "internal error")

    def _refuse(self, reply: _NativeReply) -> None:
        """Answer a call that arrived during the stop, or after its deadline."""
        if self._draining:
            reply.fail(Code.UNAVAILABLE, "server is shutting down")
        else:
            reply.fail(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _remember(self, reply: _NativeReply) -> None:
        """Keep the reply of a call that waits, so that a cancellation can reach it."""
        replies = self._replies
        replies[reply.call] = reply
        if len(replies) > self._sweep_at:
            for call in [c for c, r in replies.copy().items() if r.over]:
                replies.pop(call, None)
            self._sweep_at = 2 * len(replies) + _MAX_STREAMS

    def _cancelled(self, call: int) -> None:
        reply = self._replies.pop(call, None)
        if reply is not None:
            reply.gone = True


def _deepen_backlog(port: int) -> None:
    """Listen again on our own sockets with a longer queue: pygrpc-native's has 128 connections."""
    for _, listener in own_sockets(port, listening=True):
        listener.listen(_BACKLOG)
