"""RPCs that come while the first models load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from google.protobuf.message import DecodeError

from servingd.core.types import ModelSpec
from servingd.errors import ServingError
from servingd.frontends.call import CallContext
from servingd.frontends.reply import Handler, Reply
from servingd.frontends.tfs.rpc.messages import model_spec
from servingd.runtime.first_calls import HeldCall
from servingd.wire import protos

SpecOf: TypeAlias = Callable[[bytes], ModelSpec]
"""Whom a request's bytes ask for; raises DecodeError."""


def spec_of_request(payload: bytes) -> ModelSpec:
    """Of all requests that have a ModelSpec as their first field."""
    return model_spec(protos.GetModelStatusRequest.FromString(payload).model_spec)


def spec_of_tasks(payload: bytes) -> ModelSpec:
    """Of a MultiInferenceRequest: its first task's."""
    tasks = protos.MultiExamplesRequest.FromString(payload).tasks
    return model_spec(tasks[0].model_spec) if tasks else ModelSpec("")


def waiting(
    handler: Handler, method: str, context: CallContext, spec_of: SpecOf = spec_of_request
) -> Handler:
    """A handler whose calls may wait for the first models."""
    first_calls = context.first_calls
    if first_calls is None or first_calls.over:
        return handler
    gate = first_calls

    def handle(payload: bytes, reply: Reply) -> None:
        if gate.over:
            handler(payload, reply)
            return

        def fail(error: ServingError) -> None:
            reply.fail(error.code, error.message, error.retry_after_s)
            context.metrics.record("", 0, "", method, error.code, 0.0)

        try:
            spec = spec_of(payload)
        except DecodeError:  # its handler says so
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
