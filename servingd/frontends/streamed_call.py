"""A call of any API whose answer is sent in parts: its handle, its parts and its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

from servingd.core.types import Tensors
from servingd.errors import Code, ServingError
from servingd.frontends.call import CallContext, Note, SignatureCall, late_code
from servingd.frontends.reply import PartsReply


class StreamedCall(SignatureCall):
    """A `PartsReceiver` over a `PartsReply`; the base of each API's own.

    It is counted once, as soon as its outcome is known. It gives its handle back when it is closed,
    which may be later: a step of the model may still be under way. It is in no request log.
    """

    api = "Predict"
    output_filter: Sequence[str]

    def __init__(self, reply: PartsReply, context: CallContext) -> None:
        super().__init__(reply, context)
        self._uncounted = [True]  # popping it is atomic: the thread that succeeds counts

    @property
    def _parts(self) -> PartsReply:
        return cast(PartsReply, self._reply)  # the constructor takes no other

    def wants_part(self) -> bool:
        """Return whether few parts wait to be sent."""
        return self._parts.wants_part()

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` when a part is wanted again, and when nobody waits any more."""
        self._parts.watch(wake)

    def part(self, outputs: Tensors) -> None:
        """Encode and send one part."""
        runner, handle = self.runner, self.handle
        assert runner is not None  # the runner called this method
        assert handle is not None  # the runner was found through it
        note: Note = runner.notes.get(self.method) or self._make_note(runner, handle)
        if self._parts.send_part(self.encode(outputs, runner.signature, note)):
            self._context.metrics.count_part(handle.id.name)

    def end(self) -> None:
        """End the answer."""
        self._count(Code.OK if self._parts.end() else late_code(self._reply))

    def succeed(self, outputs: Tensors) -> None:
        """Never called: a stream's runs have completions of their own."""
        raise NotImplementedError

    def fail(self, error: ServingError) -> None:
        """End the answer with an error, unless it has ended."""
        sent = self._reply.fail(error.code, error.message, error.retry_after_s)
        # A queue that drops a step says DEADLINE_EXCEEDED, though its client may have left.
        self._count(error.code if sent else late_code(self._reply))

    def close(self) -> None:
        """Give the handle back; count the call if its client has gone before the end."""
        self._count(late_code(self._reply))
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.release()

    def _count(self, code: Code) -> None:
        """Record the call, unless it was."""
        try:
            self._uncounted.pop()
        except IndexError:
            return
        context = self._context
        model, version = context.metric_labels(self.handle, getattr(self, "spec", None))
        signature = self.runner.signature.name if self.runner else ""
        seconds = time.perf_counter() - self._started
        request_id = "" if code is Code.OK else self._reply.request_id()
        context.metrics.record(model, version, signature, self.method, code, seconds, request_id)
