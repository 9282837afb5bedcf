"""Let gRPC calls wait while the first models load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from servingd.core.types import ModelSpec
from servingd.errors import ServingError
from servingd.frontends.call import CallContext
from servingd.frontends.reply import Reply
from servingd.runtime.first_calls import HeldCall

R = TypeVar("R", bound=Reply)


def waiting(
    handler: Callable[[bytes, R], None],
    method: str,
    context: CallContext,
    spec_of: Callable[[bytes], ModelSpec],
) -> Callable[[bytes, R], None]:
    """Return a handler whose calls wait, if they must, until the first models have loaded.

    `spec_of` returns the ModelSpec in a request's bytes; raises DecodeError.
    """
    first_calls = context.first_calls
    if first_calls is None or first_calls.over:
        return handler
    gate = first_calls

    def handle(payload: bytes, reply: R) -> None:
        if gate.over:
            handler(payload, reply)
            return

        def fail(error: ServingError) -> None:
            reply.fail(error.code, error.message, error.retry_after_s)
            context.metrics.record("", 0, "", method, error.code, 0.0, reply.request_id())

        try:
            spec = spec_of(payload)
        except (DecodeError, ServingError):  # its handler answers with the error
            handler(payload, reply)
            return
        begin = HeldCall(len(payload), reply.alive, lambda: handler(payload, reply), fail)
        try:
            held = gate.hold(spec, begin)
        except ServingError as error:
            fail(error)
            return
        if not held:
            handler(payload, reply)

    return handle
