"""Predict over REST in parts: server-sent events, or a JSON document on each line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from servingd.core.types import ModelSpec, Signature, Tensors
from servingd.errors import Code, InvalidArgument, ServingError
from servingd.frontends.call import CallContext, Note, to_serving_error
from servingd.frontends.http.messages import HttpReply
from servingd.frontends.http.parts import PartedBody
from servingd.frontends.reply import MOST_PARTS
from servingd.frontends.streamed_call import StreamedCall
from servingd.frontends.tfs.rest.reply import JSON, ReplyForm, RestReply, told
from servingd.frontends.workers import Workers
from servingd.inference.predict_streamed import predict_streamed
from servingd.wire.json.results import encode_error, encode_predictions
from servingd.wire.json.tensors import PredictBody, read_predict

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"

_WHOLE = frozenset((JSON, "application/*", "*/*"))
"""Media types that mean the whole answer."""

_NOT_CACHED = (("cache-control", "no-store"),)
_LAYOUT = re.compile(rb"\n *")
"""Line breaks of a document, with what indents the next line; strings have none."""


class Frame(NamedTuple):
    """How the parts of a media type are told from each other."""

    media_type: str
    before: bytes
    before_error: bytes
    after: bytes

    def part(self, document: bytes) -> bytes:
        """Return a part as it is sent."""
        return self.before + _LAYOUT.sub(b"", document) + self.after

    def error(self, message: str) -> bytes:
        """Return an error as the last part."""
        return self.before_error + _LAYOUT.sub(b"", encode_error(message)) + self.after


_FRAMES = {
    EVENTS: Frame(EVENTS, b"data: ", b"event: error\ndata: ", b"\n\n"),
    LINES: Frame(LINES, b"", b"", b"\n"),
}


def wanted_frame(headers: Mapping[str, str]) -> Frame | None:
    """Return how a client wants its parts; None if it wants the whole answer, as most do.

    The media type with the greatest weight counts, of several the first.
    """
    accept = headers.get("accept", "").lower()
    if not any(media_type in accept for media_type in _FRAMES):
        return None
    best, best_weight = "", 0.0
    for choice in accept.split(","):
        media_type, *parameters = (text.strip() for text in choice.split(";"))
        weight = _weight(parameters)
        if (media_type in _FRAMES or media_type in _WHOLE) and weight > best_weight:
            best, best_weight = media_type, weight
    return _FRAMES.get(best)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class StreamedRestReply(RestReply):
    """Answers in parts; an error before the first one is an ordinary answer. See `PartsReply`."""

    __slots__ = ("_body", "_chunked", "_frame", "_wake")

    def __init__(
        self,
        reply: HttpReply,
        form: ReplyForm,
        timeout_s: float | None,
        workers: Workers | None = None,
        *,
        frame: Frame,
        chunked: bool,
    ) -> None:
        super().__init__(reply, form, timeout_s, workers)
        self._frame = frame
        self._chunked = chunked
        self._body: PartedBody | None = None  # once it has begun
        self._wake: Callable[[], None] | None = None

    def alive(self) -> bool:
        """Return whether somebody still waits for parts."""
        body = self._body
        if body is None:
            return super().alive()
        return body.alive() and (self.deadline is None or time.monotonic() < self.deadline)

    def wants_part(self) -> bool:
        """Return whether few parts wait to be written."""
        return self._body is None or self._body.waiting < MOST_PARTS

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` when parts are taken, and when nobody waits any more."""
        self._wake = wake

    def send_part(self, payload: bytes) -> bool:
        """Send a document as a part."""
        body = self._begun()
        return body is not None and body.add(self._frame.part(payload))

    def end(self) -> bool:
        """End the answer."""
        body = self._begun()
        return body is not None and body.end()

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        """Send an error, as the last part if there are parts."""
        if self._body is None and super().fail(code, message, retry_after_s):
            if self._wake is not None:
                self._wake()
            return True
        body = self._reply.parts
        return body is not None and body.end(self._frame.error(told(code, message)))

    def _begun(self) -> PartedBody | None:
        """Return the body, begun; None if there was an answer already. For one thread at a time."""
        body = self._body
        if body is None:
            headers = (*self._form.headers, *_NOT_CACHED)
            media_type = self._frame.media_type
            body = self._reply.begin(200, media_type, headers, chunked=self._chunked)
            if body is not None:
                if self._wake is not None:
                    body.watch(self._wake)
                self._body = body
        return body


class StreamedJsonPredict(StreamedCall):
    """One `:predict` call that is answered in parts."""

    method = "predict_streamed"
    output_filter = ()

    _body: PredictBody

    def start(self, spec: ModelSpec, body: bytes) -> None:
        """Read the body, then find the servable, so that errors in the body come first."""
        self.spec = spec
        read = self._body = read_predict(body)
        if read.signature_name:
            self.spec = spec._replace(signature_name=read.signature_name)
        predict_streamed(self._context.models, self, self._context.checks)

    def bind(self, signature: Signature) -> Tensors:
        """Return the inputs of the body, bound to the signature."""
        inputs = self._body.inputs(signature)
        self._body.release()  # else the body is kept as long as the stream
        return inputs

    def no_such_signature(self, name: str) -> ServingError:
        """Return REST's error for a missing signature."""
        return InvalidArgument(f'Serving signature name: "{name}" not found in signature def')

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return `predictions` or `outputs`, in the request's format."""
        return encode_predictions(outputs, signature.outputs, self._body.columnar)


def start_streamed(
    spec: ModelSpec, body: bytes, reply: StreamedRestReply, context: CallContext
) -> None:
    """Begin a call with a JSON body; it is answered in parts."""
    call = StreamedJsonPredict(reply, context)
    try:
        call.start(spec, body)
    except Exception as error:
        call.fail(to_serving_error(error, call.method))
        call.close()
