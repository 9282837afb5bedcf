"""TensorFlow Serving's REST API: every route under `/v1/`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import States
from servingd.core.types import ModelSpec
from servingd.errors import Code, PermissionDenied, ServingError
from servingd.frontends.call import CallContext, to_serving_error
from servingd.frontends.http.content_coding import inflated
from servingd.frontends.http.messages import Headers, HttpReply, HttpRequest
from servingd.frontends.job_reply import JobReply
from servingd.frontends.large_bodies import LargeBodies
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import PRIORITY_HEADER
from servingd.frontends.tfs.rest.inference import start_json, start_proto
from servingd.frontends.tfs.rest.jobs import send_pending
from servingd.frontends.tfs.rest.reply import (
    JSON,
    PROTOBUF,
    AnyReply,
    ReplyForm,
    RestReply,
    reply_form,
)
from servingd.frontends.tfs.rest.routes import Route, route
from servingd.frontends.tfs.rest.streamed import (
    StreamedRestReply,
    start_streamed,
    wanted_frame,
)
from servingd.frontends.workers import Workers
from servingd.inference.metadata import SIGNATURE_DEF, model_metadata
from servingd.inference.status import model_status, versions_of
from servingd.runtime.byte_budget import ByteBudget
from servingd.runtime.first_calls import HeldCall
from servingd.runtime.jobs import Job, JobStore
from servingd.runtime.webhooks import Webhooks
from servingd.wire.json.status import encode_metadata, encode_models, encode_status
from servingd.wire.signatures import signature_def_map

_LARGE_BYTES = 64 << 10
"""Bytes above which a worker reads a body: parsing it here would block every connection."""

_CORS: Headers = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST, GET"),
    ("access-control-allow-headers", "Content-Type"),
)


_PLAN = "rest"
"""The key of the note, on a request's head, that holds the plan for such requests."""


class _Plan(NamedTuple):
    """What inference calls with the same head have in common."""

    verb: str
    spec: ModelSpec
    form: ReplyForm
    is_plain: bool
    """Whether the body is uncompressed JSON, and the answer is to be sent whole."""
    is_proto: bool
    new_reply: Callable[..., RestReply]
    """Makes a reply: a `StreamedRestReply` if the answer is to be sent in parts."""


_WEBHOOK_HEADER = "x-servingd-webhook"
"""The address at which the end of a job is to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions:
    """Settings of the REST API."""

    timeout_s: float | None = 30.0
    """Seconds that an inference call may take; None: no limit."""
    cors: bool = False
    """Whether browsers may show answers to pages of other origins."""
    max_message_bytes: int = 2**31 - 1
    webhooks: Webhooks | None = None
    """Who tells the ends of jobs; None: nobody may ask for it."""
    large_bodies: LargeBodies | None = None
    """Reads large bodies of all APIs; None: this one has its own."""


class RestApi:
    """Answers requests on the loop's thread; a run may be completed on any other thread."""

    def __init__(
        self,
        context: CallContext,
        states: States,
        workers: Workers,
        options: RestOptions,
        jobs: JobStore,
    ) -> None:
        """`jobs` keeps the answers to calls that nobody waits for."""
        self._jobs = jobs
        self._context = context
        self._states = states
        self._workers = workers
        self._webhooks = options.webhooks
        self._large = options.large_bodies or LargeBodies(workers, ByteBudget(1 << 30))
        self._timeout_s = options.timeout_s
        self._parser = MessageParser(options.max_message_bytes)
        self.headers: Headers = _CORS if options.cors else ()
        """Those of every answer."""

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request whose target begins with `/v1/`."""
        plan = request.notes.get(_PLAN)
        if plan is not None:
            self._infer(plan, request, reply)
            return
        started = time.perf_counter()
        if request.method == "OPTIONS":
            self._preflight(request, reply, started)
            return
        found = route(request.method, request.target)
        if found.is_job and found.error is None:
            self._submit(self._plan(found, request), request, reply)
        elif found.error is None and request.method == "POST":
            plan = request.notes[_PLAN] = self._plan(found, request)
            self._infer(plan, request, reply)
        else:
            self._answer(found, request, reply, started)

    def handle_elsewhere(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer as `handle` does, but on a worker: the loop's thread is never blocked."""
        try:
            self._large.run(lambda: self.handle(request, reply))
        except ServingError as error:
            form = reply_form(request.headers, self.headers)
            RestReply(reply, form, None).fail(error.code, error.message, error.retry_after_s)

    # Inference ------------------------------------------------------------------------------------

    def _plan(self, found: Route, request: HttpRequest) -> _Plan:
        """Return the plan for inference calls with this head."""
        headers = request.headers
        is_proto = headers.get("content-type", "").startswith(PROTOBUF)
        new_reply: Callable[..., RestReply] = RestReply
        frame = None if is_proto or found.verb != "predict" else wanted_frame(headers)
        if frame is not None:
            new_reply = partial(StreamedRestReply, frame=frame, chunked=request.takes_chunks)
        return _Plan(
            found.verb,
            found.spec,
            reply_form(headers, self.headers),
            not is_proto and frame is None and "content-encoding" not in headers,
            is_proto,
            new_reply,
        )

    def _infer(self, plan: _Plan, request: HttpRequest, reply: HttpReply) -> None:
        """Begin an inference call, or hold it until the first models have loaded."""
        rest = plan.new_reply(reply, plan.form, self._timeout_s, self._workers)
        first_calls = self._context.first_calls
        if first_calls is None or first_calls.over:
            self._begin(plan, request, rest)
        else:
            self._wait(
                plan.spec, plan.verb, request, rest, lambda: self._begin(plan, request, rest)
            )
        if rest.deadline is not None and reply.payload is None:
            reply.deadline, reply.expire = rest.deadline, rest.expire

    def _open_job(self, request: HttpRequest) -> Job:
        """Return a new job. Raises PermissionDenied for a webhook that is not allowed."""
        url = request.headers.get(_WEBHOOK_HEADER, "")
        if not url:
            return self._jobs.open(len(request.body))
        if self._webhooks is None:
            raise PermissionDenied("webhook: --job_webhooks allows none")
        self._webhooks.check(url)
        job = self._jobs.open(len(request.body))
        self._webhooks.watch(job, url)
        return job

    def _submit(self, plan: _Plan, request: HttpRequest, reply: HttpReply) -> None:
        """Begin an inference call whose answer is a job's result, and answer with the job."""
        first_calls = self._context.first_calls
        try:
            job = self._open_job(request)
        except ServingError as error:
            rest = RestReply(reply, plan.form, None)
            rest.fail(error.code, error.message, error.retry_after_s)
            self._count(plan.verb, plan.spec, error.code, 0.0, plan.form.request_id)
            return
        priority = plan.form.priority if PRIORITY_HEADER in request.headers else Priority.LOW
        kept = JobReply(self._jobs, job, JSON, priority)
        send_pending(reply, job.id, self.headers)  # before it begins: it may end at once

        def begin() -> None:
            self._start_elsewhere(plan, request, kept)

        if first_calls is None or first_calls.over:
            begin()
        else:
            self._wait(plan.spec, plan.verb, request, kept, begin)

    def _wait(
        self,
        spec: ModelSpec,
        verb: str,
        request: HttpRequest,
        rest: AnyReply,
        begin: Callable[[], None],
    ) -> None:
        """Begin a call when the first models have loaded."""

        def fail(error: ServingError) -> None:
            rest.fail(error.code, error.message, error.retry_after_s)
            self._count(verb, spec, error.code, 0.0)

        first_calls = self._context.first_calls
        assert first_calls is not None  # checked by the caller
        try:
            held = first_calls.hold(spec, HeldCall(len(request.body), rest.alive, begin, fail))
        except ServingError as error:
            fail(error)
            return
        if not held:
            begin()

    def _begin(self, plan: _Plan, request: HttpRequest, rest: AnyReply) -> None:
        """Begin a call here if its body is small, else on a worker."""
        small = len(request.body) <= _LARGE_BYTES
        if small and plan.is_plain:
            start_json(plan.verb, plan.spec, request.body, rest, self._context)
        elif small and "content-encoding" not in request.headers:
            self._start(plan, request, rest)
        else:
            self._start_elsewhere(plan, request, rest)

    def _start(self, plan: _Plan, request: HttpRequest, rest: AnyReply) -> None:
        """Inflate the body and start the call."""
        try:
            body = inflated(request.headers, request.body)
        except ServingError as error:
            self._refuse(plan, rest, error)
            return
        if isinstance(rest, StreamedRestReply):
            start_streamed(plan.spec, body, rest, self._context)
        elif plan.is_proto:
            start_proto(plan.verb, plan.spec, body, rest, self._context, self._parser)
        else:
            start_json(plan.verb, plan.spec, body, rest, self._context)

    def _start_elsewhere(self, plan: _Plan, request: HttpRequest, rest: AnyReply) -> None:
        self._large.start(
            request,
            rest,
            lambda: self._start(plan, request, rest),
            lambda error: self._refuse(plan, rest, error),
        )

    def _refuse(self, plan: _Plan, rest: AnyReply, error: ServingError) -> None:
        """Answer a call that is not begun with an error."""
        if error.code is Code.RESOURCE_EXHAUSTED:
            rest.refuse_body(error.message)
        else:
            rest.fail(error.code, error.message, error.retry_after_s)
        self._count(plan.verb, plan.spec, error.code, 0.0, plan.form.request_id)

    # What is answered at once ---------------------------------------------------------------------

    def _answer(self, found: Route, request: HttpRequest, reply: HttpReply, started: float) -> None:
        """Answer status, metadata, lists and errors; metadata may wait for the first models."""
        first_calls = self._context.first_calls
        waits = found.verb == "metadata" and first_calls is not None and not first_calls.over
        form = reply_form(request.headers, self.headers)
        rest = RestReply(reply, form, self._timeout_s if waits else None, self._workers)
        if waits:
            self._wait(
                found.spec,
                found.verb,
                request,
                rest,
                lambda: self._answer_now(found, reply, rest, started),
            )
            if rest.deadline is not None and reply.payload is None:
                reply.deadline, reply.expire = rest.deadline, rest.expire
        else:
            self._answer_now(found, reply, rest, started)

    def _answer_now(self, found: Route, reply: HttpReply, rest: AnyReply, started: float) -> None:
        """Send the document or the error of a route, and record the call."""
        code = Code.OK
        try:
            if found.error is not None:
                raise found.error
            rest.send(self._document(found))
        except Exception as error:
            failure = to_serving_error(error, found.verb)
            code = failure.code
            if found.silent:
                reply.send(400, b"", JSON, self.headers)
            else:
                rest.fail(code, failure.message)
        self._count(found.verb, found.spec, code, time.perf_counter() - started, rest.request_id())

    def _document(self, found: Route) -> bytes:
        """Return the JSON of a status, list or metadata request. Raises ServingError."""
        if found.verb == "status":
            return encode_status(model_status(self._states, found.spec))
        if found.verb == "models":
            names = self._states.names()
            return encode_models([(name, versions_of(self._states, name)) for name in names])
        servable, signatures = model_metadata(self._context.models, found.spec, [SIGNATURE_DEF])
        return encode_metadata(servable.name, servable.version, signature_def_map(signatures))

    def _preflight(self, request: HttpRequest, reply: HttpReply, started: float) -> None:
        """Answer a browser's CORS preflight request."""
        origin = request.headers.get("origin", "")
        allowed = "http://" in origin or "https://" in origin
        code = Code.OK if allowed else Code.FAILED_PRECONDITION
        reply.send(200 if allowed else 400, b"", "text/html", self.headers)
        self._count("options", ModelSpec(""), code, time.perf_counter() - started)

    def _count(
        self, verb: str, spec: ModelSpec, code: Code, seconds: float, request_id: str = ""
    ) -> None:
        model, _ = self._context.metric_labels(None, spec)
        self._context.metrics.record(model, 0, "", verb or "malformed", code, seconds, request_id)
