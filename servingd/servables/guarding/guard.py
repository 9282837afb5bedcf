"""What stands between servingd and a servable that it does not know: other people's code.

Such a servable may raise, exit, hang, complete a call twice or never, answer what its signature
does not say, or lie about the signature. Here each of these becomes an error of the call, or of the
load, that names what is wrong. Only a crash of the process is beyond it: `--workers` contains that.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from threading import get_ident
from typing import Any, TypeVar

from servingd.core.call_protocols import Completion
from servingd.core.callbacks import nothing
from servingd.core.servable import RuledBatching
from servingd.core.types import ServableId, Signature, Tensors
from servingd.errors import (
    DeadlineExceeded,
    Internal,
    ServingError,
    Unavailable,
    as_serving_error,
)
from servingd.servables.guarding.event_loop import EventLoop
from servingd.servables.guarding.outcome import Handle, Outcome, checked

_log = logging.getLogger(__name__)

T = TypeVar("T")


@contextlib.contextmanager
def marked(runs: dict[int, Any], owner: object) -> Iterator[None]:
    """Record that this thread runs a version's code, for whoever finds the process dead."""
    thread = get_ident()
    runs[thread] = owner
    try:
        yield
    finally:
        del runs[thread]


class GuardedServable:
    """A servable of other people's; see `core.servable.Servable` and `RunLimits`.

    A run holds its thread until the call is completed, by whichever thread: so its time is its
    cost, and as many are under way as there are threads.
    """

    runs_inline = False
    """Its calls never run on a transport's thread: they may hang."""

    def __init__(self, servable_id: ServableId, guarded: Any, runs: dict[int, Any]) -> None:
        self.guarded = guarded
        self.signatures: Mapping[str, Signature] = dict(guarded.signatures)
        self.metadata: Mapping[str, Signature] = dict(guarded.metadata)
        self.ruled_batching: RuledBatching | None = guarded.ruled_batching
        self.concurrency: int = max(0, int(getattr(guarded, "concurrency", 0)))
        self._time_limit_s = float(getattr(guarded, "time_limit_s", 0.0))
        self._runs = runs
        # Asked once, here: each call asks, on a transport's thread and with its queue's lock held.
        self._rows_worth = {
            name: max(0, self._asked("rows_worth_merging", name, int, 0))
            for name in self.signatures
        }
        self._under_way: set[Outcome] = set()  # one change of it is atomic
        self._ended = False
        predict = getattr(guarded, "predict", None)
        self._generates = _generates(predict)
        self._loop = EventLoop(f"asyncio {servable_id}") if _is_async(predict) else None
        self._timers = EventLoop(f"time-limit {servable_id}") if self._time_limit_s else None

    def rows_worth_merging(self, signature: str) -> int:
        """Return what the servable said when it was loaded; 0 if it could not say."""
        return self._rows_worth.get(signature, 0)

    def why_not_merged(self, signature: str) -> str:
        """Return what the servable says."""
        return self._asked("why_not_merged", signature, str, "")

    def may_be_repeated(self, signature: str) -> bool:
        """Return what the servable says; False if it cannot say."""
        return self._asked("may_be_repeated", signature, bool, False)

    def _asked(self, question: str, signature: str, kind: Callable[[Any], T], otherwise: T) -> T:
        try:
            return kind(getattr(self.guarded, question)(signature))
        except BaseException:
            _log.exception("%s of signature %s failed", question, signature)
            return otherwise

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run a call, and return when it is completed or its time is over."""
        outcome = Outcome(done, signature)
        self._under_way.add(outcome)
        if self._ended:  # asked after the line above, as `end_runs` sets it before it looks
            self._under_way.discard(outcome)
            outcome.fail(Unavailable("the server is stopping"))
            return
        limit = self._limit(done.deadline)
        end_timer: Callable[[], None] = nothing
        if self._timers is not None and (self._loop is None or self._generates):
            end_timer = self._timers.begin(_expire(outcome, self._time_limit_s))
        with marked(self._runs, self):
            try:
                self._begin(signature, inputs, outcome)
            except BaseException as error:  # other people's code may even raise SystemExit
                outcome.fail(_as_error(error, signature))
            outcome.wait(limit)
        end_timer()  # else it keeps the call, and so its tensors, until the limit
        self._under_way.discard(outcome)

    def _begin(self, signature: Signature, inputs: Tensors, outcome: Outcome) -> None:
        """Begin a call; it may be completed later."""
        guarded = self.guarded
        if self._generates:
            with contextlib.closing(self._parts(signature, inputs)) as parts:
                outcome.succeed(_last(signature, parts))
        elif self._loop is not None:
            call = guarded.predict(signature.name, inputs)
            outcome.cancel = self._loop.begin(_answered(call, outcome))
        else:
            guarded.run(signature, inputs, Handle(outcome))

    def streams(self, signature: str) -> bool:
        """Return whether a signature is answered in parts; see `core.servable.Streams`."""
        return self._generates

    def stream(self, signature: Signature, inputs: Tensors) -> Iterator[Tensors]:
        """Yield the parts of an answer, each checked against the signature."""
        with contextlib.closing(self._parts(signature, inputs)) as parts:
            while True:
                with marked(self._runs, self):
                    try:
                        part = next(parts)
                    except StopIteration:
                        return
                yield checked(signature, part)

    def _parts(self, signature: Signature, inputs: Tensors) -> Generator[Tensors]:
        """Return the servable's own generator; one that is asynchronous, step by step."""
        made = self.guarded.predict(signature.name, inputs)
        return made if self._loop is None else _in_steps(made, self._loop)

    def _limit(self, deadline: float | None) -> float | None:
        """Return the monotonic seconds until which a call may take; None: for ever."""
        if not self._time_limit_s:
            return deadline
        ours = time.monotonic() + self._time_limit_s
        return ours if deadline is None else min(ours, deadline)

    def end_runs(self) -> None:
        """Answer the calls under way, and all later ones, by an error.

        The server stops, and their code may not come back; what waited for a thread comes now.
        """
        self._ended = True
        for outcome in tuple(self._under_way):
            outcome.fail(Unavailable("the server is stopping"))

    def end(self) -> None:
        """End the event loops, if there are any."""
        for loop in (self._loop, self._timers):
            if loop is not None:
                loop.stop()

    def close(self) -> None:
        """Close the servable."""
        self.end()
        self.guarded.close()


async def _answered(call: Coroutine[Any, Any, Tensors], outcome: Outcome) -> None:
    """Await a coroutine, and complete its call; on the version's event loop."""
    try:
        outcome.succeed(await call)
    except asyncio.CancelledError:
        outcome.fail(DeadlineExceeded("Deadline Exceeded"))
        raise
    except BaseException as error:  # other people's code may even raise SystemExit
        outcome.fail(_as_error(error, outcome.signature))


async def _expire(outcome: Outcome, seconds: float) -> None:
    """Answer a call after its time limit, though the thread that runs it may not come back."""
    await asyncio.sleep(seconds)
    outcome.fail(DeadlineExceeded(f"the call took longer than its time limit of {seconds:g} s"))


def _is_async(predict: Any) -> bool:
    return inspect.iscoroutinefunction(predict) or inspect.isasyncgenfunction(predict)


def _generates(predict: Any) -> bool:
    return inspect.isgeneratorfunction(predict) or inspect.isasyncgenfunction(predict)


def _in_steps(parts: AsyncGenerator[Tensors], loop: EventLoop) -> Generator[Tensors]:
    """Yield the parts of an asynchronous generator, each awaited on its event loop."""
    try:
        while True:
            try:
                yield loop.result(anext(parts))
            except StopAsyncIteration:
                return
    finally:
        loop.result(parts.aclose())


def _as_error(error: BaseException, signature: Signature) -> ServingError:
    """Return an exception as the error of a call; the log gets what only its author can mend."""
    if not isinstance(error, ServingError):
        _log.error("a call of signature %s failed", signature.name, exc_info=error)
    return as_serving_error(error)


def _last(signature: Signature, parts: Iterator[Tensors]) -> Tensors:
    """Return the last part of a stream. Raises Internal if there is none."""
    last: Tensors | None = None
    for last in parts:  # noqa: B007 -- the last one is what counts
        pass
    if last is None:
        raise Internal(f"signature {signature.name}: the servable gave no part of an answer")
    return last
