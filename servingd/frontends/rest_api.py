"""TensorFlow Serving's REST API: every route under `/v1/`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from servingd.core.interfaces import States
from servingd.core.types import ModelSpec
from servingd.errors import Code, ServingError, Unavailable
from servingd.frontends.calls import CallContext, blame
from servingd.frontends.content_coding import inflated
from servingd.frontends.http_messages import Headers, HttpReply, HttpRequest
from servingd.frontends.rest_calls import start_json, start_proto
from servingd.frontends.rest_reply import JSON, PROTOBUF, RestReply
from servingd.frontends.rest_routes import Route, route
from servingd.frontends.rpc_messages import MessageParser
from servingd.frontends.shared_page import Workers
from servingd.inference.metadata import SIGNATURE_DEF, model_metadata
from servingd.inference.status import model_status, versions_of
from servingd.wire.json_status import encode_metadata, encode_models, encode_status
from servingd.wire.signatures import signature_def_map

_LARGE_BYTES = 64 << 10
"""A body of more is read by a worker: parsing it would hold up every other connection."""

_MAX_WAITING = 256

_CORS: Headers = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST, GET"),
    ("access-control-allow-headers", "Content-Type"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions:
    """How REST is served."""

    timeout_s: float | None = 30.0
    """The time of an inference call; None: without end."""
    cors: bool = False
    """Whether answers may be read by pages of other origins."""
    max_message_bytes: int = 2**31 - 1


class RestApi:
    """Answers requests on the loop's thread; runs of models are completed by whoever runs them."""

    def __init__(
        self, context: CallContext, states: States, workers: Workers, options: RestOptions
    ) -> None:
        self._context = context
        self._states = states
        self._workers = workers
        self._timeout_s = options.timeout_s
        self._parser = MessageParser(options.max_message_bytes)
        self._headers: Headers = _CORS if options.cors else ()
        self._waiting = 0  # guarded by _lock
        self._lock = threading.Lock()

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request whose target begins with `/v1/`."""
        started = time.perf_counter()
        if request.method == "OPTIONS":
            self._preflight(request, reply, started)
            return
        found = route(request.method, request.target)
        if found.error is None and request.method == "POST":
            self._infer(found, request, reply)
        else:
            self._answer(found, request, reply, started)

    # Inference ------------------------------------------------------------------------------------

    def _infer(self, found: Route, request: HttpRequest, reply: HttpReply) -> None:
        rest = RestReply(reply, request.headers, self._headers, self._timeout_s)
        if len(request.body) <= _LARGE_BYTES and "content-encoding" not in request.headers:
            self._start(found, request, rest)
        else:
            self._start_elsewhere(found, request, rest)
        if rest.deadline is not None:
            reply.due, reply.expire = rest.deadline, rest.expire

    def _start(self, found: Route, request: HttpRequest, rest: RestReply) -> None:
        kind = request.headers.get("content-type", "")
        try:
            body = inflated(request.headers, request.body)
        except ServingError as error:
            if error.code is Code.RESOURCE_EXHAUSTED:
                rest.refuse_body(error.message)
            else:
                rest.fail(error.code, error.message)
            self._count(found.verb, found.spec, error.code, 0.0)
            return
        if kind.startswith(PROTOBUF):
            start_proto(found.verb, found.spec, body, rest, self._context, self._parser)
        else:
            start_json(found.verb, found.spec, body, rest, self._context)

    def _start_elsewhere(self, found: Route, request: HttpRequest, rest: RestReply) -> None:
        with self._lock:
            full = self._waiting >= _MAX_WAITING
            self._waiting += not full
        if full:
            error = Unavailable(f"{_MAX_WAITING} large requests are waiting already")
            rest.fail(error.code, error.message)
            self._count(found.verb, found.spec, error.code, 0.0)
            return

        def job() -> None:
            with self._lock:
                self._waiting -= 1
            if rest.alive():
                self._start(found, request, rest)
            else:
                rest.expire()

        self._workers.submit(job)

    # What is answered at once ---------------------------------------------------------------------

    def _answer(self, found: Route, request: HttpRequest, reply: HttpReply, started: float) -> None:
        rest = RestReply(reply, request.headers, self._headers, None)
        code = Code.OK
        try:
            if found.error is not None:
                raise found.error
            rest.send(self._document(found))
        except Exception as error:
            blamed = blame(error, found.verb)
            code = blamed.code
            if found.silent:
                reply.send(400, b"", JSON, self._headers)
            else:
                rest.fail(code, blamed.message)
        self._count(found.verb, found.spec, code, time.perf_counter() - started)

    def _document(self, found: Route) -> bytes:
        if found.verb == "status":
            return encode_status(model_status(self._states, found.spec))
        if found.verb == "models":
            names = self._states.names()
            return encode_models([(name, versions_of(self._states, name)) for name in names])
        servable, signatures = model_metadata(self._context.models, found.spec, [SIGNATURE_DEF])
        return encode_metadata(servable.name, servable.version, signature_def_map(signatures))

    def _preflight(self, request: HttpRequest, reply: HttpReply, started: float) -> None:
        """A browser asks whether it may ask."""
        origin = request.headers.get("origin", "")
        allowed = "http://" in origin or "https://" in origin
        code = Code.OK if allowed else Code.FAILED_PRECONDITION
        reply.send(200 if allowed else 400, b"", "text/html", self._headers)
        self._count("options", ModelSpec(""), code, time.perf_counter() - started)

    def _count(self, verb: str, spec: ModelSpec, code: Code, seconds: float) -> None:
        model, _ = self._context.blamed(None, spec)
        self._context.metrics.record(model, 0, "", verb or "malformed", code, seconds)
