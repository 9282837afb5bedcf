"""The second gRPC transport, complete by itself: grpcio with a blocking servicer per call.

It takes the port where the native one cannot, and otherwise stands behind it on a private socket
for what that does not carry: answers in parts, health (with its stream of changes) and reflection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_reflection.v1alpha import reflection

from servingd.core.batching.queue import Priority
from servingd.errors import Code
from servingd.frontends.grpc.parts import StreamThreads
from servingd.frontends.reply import (
    AUTHORIZATION_HEADER,
    PRIORITY_HEADER,
    REQUEST_ID_HEADER,
    Handler,
    PartsHandler,
    priority_of,
    request_id_in,
)
from servingd.frontends.status_codes import answer_metadata, grpc_message

_CODES = {code.value[0]: code for code in grpc.StatusCode}
DEFAULT_WORKERS = 1024
"""The number of calls that can be in flight: each holds a thread, started as needed."""

_LAST_WORDS_S = 0.2
"""Seconds for answers being sent when the server stops; then the connections are cut off."""

_LIMITS: Sequence[tuple[str, int]] = (
    # One connection must not hold every thread by calls that it never finishes sending. At its
    # limit grpcio now and then refuses a call that is sent as soon as another was answered.
    ("grpc.max_concurrent_streams", 512),
    # Beyond these, grpcio cancels the next call, whichever client makes it.
    ("grpc.server.max_pending_requests", 1 << 20),
    ("grpc.server.max_pending_requests_hard_limit", 1 << 21),
)


class _WaitingReply:
    """A call of grpcio: its servicer's thread waits for the answer; see `Reply`."""

    __slots__ = (
        "_answered",
        "_context",
        "_gone",
        "_lock",
        "code",
        "deadline",
        "message",
        "payload",
    )

    alone = False  # not known: other servicers may have calls in hand

    def __init__(self, context: grpc.ServicerContext, deadline: float | None) -> None:
        self._context = context
        self.deadline = deadline
        self._answered = threading.Event()
        self._lock = threading.Lock()
        self._gone = False  # guarded by _lock: cancelled, expired, or answered already
        self.payload: bytes | None = None
        self.code = Code.OK
        self.message = ""

    def priority(self) -> Priority:
        for name, value in self._context.invocation_metadata():
            if name == PRIORITY_HEADER:
                return priority_of(value)
        return Priority.NORMAL

    def authorization(self) -> str:
        found = self._context.invocation_metadata()
        return next((str(e[1]) for e in found if e[0] == AUTHORIZATION_HEADER), "")

    def request_id(self) -> str:
        return request_id_in(self._context.invocation_metadata())

    def alive(self) -> bool:
        return not self._gone and (self.deadline is None or time.monotonic() < self.deadline)

    def begin_batch(self) -> None:
        """Do nothing: each answer wakes the thread that waits for it."""

    def send(self, payload: bytes) -> bool:
        repeated = answer_metadata(self._context.invocation_metadata())
        if repeated:
            self._context.set_trailing_metadata(repeated)
        return self._answer(Code.OK, "", bytes(payload))

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        metadata = answer_metadata(self._context.invocation_metadata(), retry_after_s)
        if metadata:
            self._context.set_trailing_metadata(metadata)
        return self._answer(code, grpc_message(message), None)

    def gone(self) -> None:
        """Mark the call as cancelled or expired; called by grpcio on any thread."""
        with self._lock:
            self._gone = True
        self._answered.set()

    def wait(self) -> None:
        """Wait until there is an answer, or nobody waits for it any more."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        self._answered.wait(left)

    def _answer(self, code: Code, message: str, payload: bytes | None) -> bool:
        """Store the answer and wake the servicer's thread; return False if it is too late."""
        with self._lock:
            if self._gone:
                return False
            self._gone = True
            self.code, self.message, self.payload = code, message, payload
        self._answered.set()
        return True


class _InFlight:
    """The number of calls that servicers have in hand. Thread-safe.

    Watches of health do not count: they end with their client, or with the server.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0  # guarded by _changed
        self._refusing = False  # guarded by _changed

    def enter(self) -> bool:
        """Count a call; return False if no more calls are accepted."""
        with self._changed:
            if not self._refusing:
                self._calls += 1
            return not self._refusing

    def leave(self) -> None:
        """Uncount a call; wakes `wait_none` after the last one."""
        with self._changed:
            self._calls -= 1
            if not self._calls:
                self._changed.notify_all()

    def refuse(self) -> None:
        """Accept no more calls."""
        with self._changed:
            self._refusing = True

    def wait_none(self, deadline: float) -> bool:
        """Wait until no call is in flight; return False if some are at `deadline` (monotonic)."""
        with self._changed:
            left = max(0.0, deadline - time.monotonic())
            return self._changed.wait_for(lambda: not self._calls, left)


def _unary(handler: Handler, in_flight: _InFlight) -> Any:
    """Return grpcio's method handler on raw bytes."""

    def call(payload: bytes, context: grpc.ServicerContext) -> bytes:
        if not in_flight.enter():
            context.abort(grpc.StatusCode.UNAVAILABLE, "server is shutting down")
        try:
            return answer(payload, context)
        finally:
            in_flight.leave()

    def answer(payload: bytes, context: grpc.ServicerContext) -> bytes:
        left = context.time_remaining()
        bounded = left is not None and left < threading.TIMEOUT_MAX  # grpcio may give centuries
        reply = _WaitingReply(context, time.monotonic() + left if bounded else None)
        if not context.add_callback(reply.gone):
            return b""  # it was cancelled already
        own = [e for e in context.invocation_metadata() if e[0] == REQUEST_ID_HEADER]
        if own:
            context.send_initial_metadata(own)
        handler(payload, reply)
        reply.wait()
        if reply.code is not Code.OK:
            context.abort(_CODES[reply.code], reply.message)
        if reply.payload is None:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return reply.payload or b""

    return grpc.unary_unary_rpc_method_handler(call)


class GrpcioTransport:
    """A grpcio server over the method table, with health and reflection.

    `bind`, `start` and `stop` once each, in this order.
    """

    def __init__(  # noqa: PLR0913 -- each is a setting of its own
        self,
        targets: Sequence[str],
        handlers: Mapping[str, Handler],
        streams: Mapping[str, PartsHandler] | None = None,
        *,
        pool: descriptor_pool.DescriptorPool,
        max_request_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
        arguments: Sequence[tuple[str, int | str]] = (),
        workers: int = DEFAULT_WORKERS,
        shares_port: bool = False,
    ) -> None:
        self._targets = targets
        self._credentials = credentials
        options = [
            ("grpc.max_receive_message_length", min(max_request_bytes, 2**31 - 1)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(shares_port)),  # 0: a busy port is an error
            *_LIMITS,
            *arguments,
        ]
        self._in_flight = _InFlight()
        self._left: threading.Event | None = None  # set once all clients have left
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="grpcio")
        self._server = grpc.server(self._workers, options=options)
        self._stream_threads = StreamThreads(workers)
        rpcs = {path: _unary(handler, self._in_flight) for path, handler in handlers.items()}
        for path, answers_in_parts in (streams or {}).items():
            rpcs[path] = self._stream_threads.method(answers_in_parts, self._in_flight)
        services = _by_service(rpcs)
        for service, methods in services.items():
            self._server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(service, methods)]
            )
        self._health = HealthServicer(experimental_non_blocking=True)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _add_reflection(self._server, list(services), pool)

    def bind(self) -> int:
        """Bind every target; return the first one's port. Raises OSError naming a busy one."""
        ports = []
        for target in self._targets:
            try:
                if self._credentials is None:
                    ports.append(self._server.add_insecure_port(target))
                else:
                    ports.append(self._server.add_secure_port(target, self._credentials))
            except RuntimeError as error:
                raise OSError(f"cannot listen on {target}: {error}") from error
        return int(ports[0])

    def start(self) -> None:
        """Start to answer calls."""
        self._server.start()

    def set_health(self, service: str, serving: bool) -> None:
        """Set a service's health; the empty name is the whole server. Thread-safe."""
        status = health_pb2.HealthCheckResponse
        self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    def forget_health(self, service: str) -> None:
        """Answer SERVICE_UNKNOWN for a service from now on."""
        self._health.set(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)

    def leave(self, deadline: float) -> None:
        """Accept no more clients, and tell those there are to go elsewhere for further calls."""
        self._left = self._server.stop(max(0.0, deadline - time.monotonic()))

    def connections(self) -> int:
        """Return 1 while calls that came before `leave` are in flight."""
        return 0 if self._left is None or self._left.is_set() else 1

    def refuse(self) -> None:
        """Answer every new call with UNAVAILABLE from now on. Health is answered as before."""
        self._in_flight.refuse()

    def wait_idle(self, deadline: float) -> bool:
        """Wait for calls in flight; return False if some remain at `deadline` (monotonic)."""
        return self._in_flight.wait_none(deadline)

    def stop(self) -> None:
        """Close the listener and cut off the calls in flight, watches of health as well."""
        self._server.stop(_LAST_WORDS_S).wait(2)
        self._workers.shutdown(wait=False)
        self._stream_threads.shutdown()


def _by_service(rpcs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = {}
    for path, rpc in rpcs.items():
        service, method = path.removeprefix("/").split("/")
        services.setdefault(service, {})[method] = rpc
    return services


def _add_reflection(
    server: grpc.Server, services: list[str], pool: descriptor_pool.DescriptorPool
) -> None:
    """Offer reflection of our descriptors, which are in a private pool, and of gRPC's own."""
    own = ["grpc.health.v1.Health", reflection.SERVICE_NAME]
    default = descriptor_pool.Default()
    for symbol in own:
        file = default.FindFileContainingSymbol(symbol)
        pool.AddSerializedFile(file.serialized_pb)
    reflection.enable_server_reflection([*services, *own], server, pool=pool)
