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
import math
import threading
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Any, TypeVar

import numpy as np

from servingd.core.call_protocols import Completion
from servingd.core.callbacks import nothing
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.servable import RuledBatching, Servable
from servingd.core.shapes import shape_text
from servingd.core.types import ANYWHERE, Placement, ServableId, Signature, Tensors, TensorSpec
from servingd.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ServingError,
    Unavailable,
    as_serving_error,
)
from servingd.servables.event_loop import EventLoop
from servingd.wire.tensors.types import numpy_dtype, type_name

_UNLOAD_S = 5.0
"""Seconds that a servable may take to end."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class GuardedLoader:
    """A loader of other people's; what it loads is guarded. See `core.servable.Loader`."""

    def __init__(
        self,
        servable_id: ServableId,
        loader: Any,
        runs: dict[int, Any],
        loaded: Callable[[GuardedServable], None] = nothing,
    ) -> None:
        """`runs` records the threads that run the version, for whoever finds the process dead.

        `loaded` is told of each servable that is loaded.
        """
        self._id = servable_id
        self._loader = loader
        self._loaded = loaded
        self._runs = runs

    def estimate(self) -> Estimate:
        """Return what the loader says, in whole bytes. Raises FailedPrecondition for anything else.

        It is sent to another process, which takes no other numbers.
        """
        return checked_estimate(self._loader.estimate())

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Load and check the servable. Raises ServingError."""
        with marked(self._runs, self):
            loaded = self._loader.load(placement)
        try:
            check_signatures(loaded)
            servable = GuardedServable(self._id, loaded, self._runs)
            self._loaded(servable)
            return servable
        except BaseException:
            with contextlib.suppress(BaseException):
                self._loader.unload(loaded)
            raise

    def cancel(self) -> None:
        """Tell the loader, and do not wait: whoever commands it commands all others."""
        self._thread("cancel-guarded", self._tell, "cancel")

    def grow(self) -> None:
        """Tell the loader, and do not wait."""
        self._thread("grow-guarded", self._tell, "grow")

    def unload(self, servable: Servable) -> None:
        """Let the loader unload what it loaded; one that hangs is left behind."""
        assert isinstance(servable, GuardedServable)
        servable.end()
        thread = self._thread("unload-guarded", self._unload, servable.guarded)
        thread.join(_UNLOAD_S)
        if thread.is_alive():
            _log.error("%s has not ended within %g s; its memory may be lost", self._id, _UNLOAD_S)

    def _unload(self, servable: Any) -> None:
        try:
            self._loader.unload(servable)
        except BaseException:  # other people's code may even raise SystemExit
            _log.exception("Unloading servable: %s failed", self._id)

    def _tell(self, command: str) -> None:
        try:
            getattr(self._loader, command)()
        except BaseException:  # other people's code may even raise SystemExit
            _log.exception("%s of the loader of %s failed", command, self._id)

    def _thread(self, name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        return thread


@contextlib.contextmanager
def marked(runs: dict[int, Any], owner: object) -> Iterator[None]:
    """Record that this thread runs a version's code, for whoever finds the process dead."""
    thread = get_ident()
    runs[thread] = owner
    try:
        yield
    finally:
        del runs[thread]


def checked_estimate(found: Any) -> Estimate:
    """Return an estimate in whole bytes. Raises FailedPrecondition if it is none."""
    try:
        return Estimate(
            steady=_in_bytes(found.steady),
            peak=_in_bytes(found.peak),
            growth=_in_bytes(found.growth),
            grown=_in_bytes(found.grown),
            least=_in_bytes(found.least),
            on_devices=bool(found.on_devices),
            measurable=bool(found.measurable),
        )
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise FailedPrecondition(f"expected an Estimate in bytes, got {found!r}: {error}") from None


def _in_bytes(found: Any) -> Footprint:
    own = found.on_accelerator
    return Footprint(
        math.ceil(found.shared), math.ceil(found.replica), None if own is None else math.ceil(own)
    )


def check_signatures(servable: Any) -> None:
    """Raise FailedPrecondition if a servable's signatures are not what they must be.

    Raises Unimplemented for data types that cannot be served.
    """
    signatures = servable.signatures
    if not isinstance(signatures, Mapping) or not signatures:
        raise FailedPrecondition(
            f"signatures of {type(servable).__name__}: expected a mapping of names to Signature, "
            f"got {signatures!r}"
        )
    for name, each in signatures.items():
        if not isinstance(each, Signature) or each.name != name:
            raise FailedPrecondition(
                f"signature {name!r} of {type(servable).__name__}: expected a Signature of that "
                f"name, got {each!r}"
            )
        for alias, spec in (*each.inputs.items(), *each.outputs.items()):
            if not isinstance(spec, TensorSpec):
                raise FailedPrecondition(
                    f"signature {name!r}, {alias}: expected a TensorSpec, got {spec!r}"
                )
            numpy_dtype(spec.data_type)


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
        self._under_way: set[_Outcome] = set()  # one change of it is atomic
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
        outcome = _Outcome(done, signature)
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

    def _begin(self, signature: Signature, inputs: Tensors, outcome: _Outcome) -> None:
        """Begin a call; it may be completed later."""
        guarded = self.guarded
        if self._generates:
            with contextlib.closing(self._parts(signature, inputs)) as parts:
                outcome.succeed(_last(signature, parts))
        elif self._loop is not None:
            call = guarded.predict(signature.name, inputs)
            outcome.cancel = self._loop.begin(_answered(call, outcome))
        else:
            guarded.run(signature, inputs, _Handle(outcome))

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


async def _answered(call: Coroutine[Any, Any, Tensors], outcome: _Outcome) -> None:
    """Await a coroutine, and complete its call; on the version's event loop."""
    try:
        outcome.succeed(await call)
    except asyncio.CancelledError:
        outcome.fail(DeadlineExceeded("Deadline Exceeded"))
        raise
    except BaseException as error:  # other people's code may even raise SystemExit
        outcome.fail(_as_error(error, outcome.signature))


async def _expire(outcome: _Outcome, seconds: float) -> None:
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


class _Outcome:
    """The outcome of one run: completed once, with outputs that are as the signature says."""

    def __init__(self, done: Completion, signature: Signature) -> None:
        self.signature = signature
        self.cancel: Callable[[], None] | None = None
        self._done = done
        self._lock = threading.Lock()
        # Ends the wait: whether the servable has let go of the call. `__del__` may `put`.
        self._over: SimpleQueue[bool] = SimpleQueue()
        self._taken = False  # set under _lock

    def succeed(self, outputs: Any) -> None:
        try:
            answer = checked(self.signature, outputs)
        except ServingError as error:
            self.fail(error)
            return
        if self._take():
            try:
                self._done.succeed(answer)
            finally:
                self._over.put(False)

    def fail(self, error: ServingError) -> None:
        if self._take():
            try:
                self._done.fail(error)
            finally:
                self._over.put(False)

    def wait(self, deadline: float | None) -> None:
        """Return when it is completed; complete it with DEADLINE_EXCEEDED after a deadline."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            let_go = self._over.get(timeout=left)
        except Empty:
            self.fail(DeadlineExceeded("Deadline Exceeded"))
            if self.cancel is not None:
                self.cancel()
            return
        if let_go:
            self.fail(
                Internal(f"signature {self.signature.name}: the servable did not complete the call")
            )

    def dropped(self) -> None:
        """Take note that the servable has let go of the call; whoever waits completes it.

        Not here: a collection of garbage calls this on any thread, whatever locks that holds.
        """
        if not self._taken:
            self._over.put(True)

    def _take(self) -> bool:
        """Return whether this is the first completion."""
        with self._lock:
            first, self._taken = not self._taken, True
        if not first:
            _log.debug("signature %s: a call was completed twice", self.signature.name)
        return first

    def alive(self) -> bool:
        return not self._taken and self._done.alive()

    @property
    def deadline(self) -> float | None:
        return self._done.deadline


class _Handle(Completion):
    """The completion that a servable gets: when it lets go of it, the call is over."""

    def __init__(self, outcome: _Outcome) -> None:
        self._outcome = outcome
        self.deadline = outcome.deadline

    def alive(self) -> bool:
        return self._outcome.alive()

    def succeed(self, outputs: Tensors) -> None:
        self._outcome.succeed(outputs)

    def fail(self, error: ServingError) -> None:
        given: object = error
        self._outcome.fail(
            as_serving_error(given)
            if isinstance(given, BaseException)
            else Internal(f"the servable failed with {given!r}")
        )

    def __del__(self) -> None:
        self._outcome.dropped()


def checked(signature: Signature, outputs: Any) -> Tensors:
    """Return outputs as arrays. Raises Internal if they are not what a signature says."""
    if not isinstance(outputs, Mapping):
        raise _lie(signature, f"expected a mapping of outputs, got {type(outputs).__name__}")
    if outputs.keys() != signature.outputs.keys():
        raise _lie(
            signature,
            f"expected the outputs {', '.join(sorted(signature.outputs))}, got "
            f"{', '.join(sorted(map(str, outputs)))}",
        )
    return {
        alias: _checked(signature, alias, spec, outputs[alias])
        for alias, spec in signature.outputs.items()
    }


def _checked(
    signature: Signature, alias: str, spec: TensorSpec, output: Any
) -> np.ndarray[Any, Any]:
    wanted = numpy_dtype(spec.data_type)
    try:
        array = np.asarray(output, None if isinstance(output, np.ndarray) else wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise _lie(signature, f"output {alias}: expected an array: {error}") from None
    if array.dtype != wanted:
        raise _lie(
            signature,
            f"output {alias}: expected {type_name(spec.data_type)}, got an array of {array.dtype}",
        )
    if not spec.takes(array.shape):
        raise _lie(
            signature,
            f"output {alias}: expected the shape {shape_text(spec.shape or ())}, got "
            f"{shape_text(array.shape)}",
        )
    if wanted.hasobject and not all(isinstance(text, bytes) for text in array.ravel()):
        raise _lie(signature, f"output {alias}: expected strings as bytes")
    return array


def _lie(signature: Signature, what: str) -> Internal:
    return Internal(f"the servable's answer is not what signature {signature.name} says: {what}")
