"""A SavedModel that can be called, however it was opened: a callable per signature."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from servingd.core.ref_count import RefCount
from servingd.core.resources.placement import Ran
from servingd.core.types import Signature, Tensors
from servingd.errors import (
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ServingError,
    Unimplemented,
)
from servingd.servables.made_up_inputs import synthetic_inputs, varies
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.row_wise.analysis import NOT_TRIED
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.device_assignment import where_it_ran
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.saved_model.session.python_session import ObjectModel
from servingd.servables.saved_model.session.run_watch import Waiting
from servingd.servables.saved_model.session.timed_runs import TimedRuns
from servingd.servables.saved_model.trials.parity import agree
from servingd.servables.saved_model.trials.varied import example_features, varied_inputs
from servingd.servables.tensorflow.runtime import translate

_log = logging.getLogger(__name__)

_WRONG_VARIABLES = ("Could not find variable", "Read variable failure")
"""What TensorFlow says of a variable that was not set: in a session, in what XLA compiles."""
_OF_THE_INPUTS = (
    Code.INVALID_ARGUMENT,
    Code.OUT_OF_RANGE,
    Code.RESOURCE_EXHAUSTED,
    Code.CANCELLED,
    Code.DEADLINE_EXCEEDED,
)
"""What TensorFlow says of inputs that a model does not like, of their size, or of time."""
_OF_THE_SIGNATURE = (
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.UNIMPLEMENTED,
    Code.OUT_OF_RANGE,
)
"""What TensorFlow says of a signature that names what there is not, or cannot be run here."""

_MAX_NARROW = 64
"""For so many sets of outputs a session keeps a callable."""

_WARM_RUNS = 3
_WARM_S = 0.5
"""A signature is run so often to warm and measure it, or for so long."""


_END_S = 10.0
"""A run that is ended may take so long to notice."""


class MadeUpRunEnded(DeadlineExceeded):
    """A run on made-up inputs was ended, and its session with it."""

    def __init__(self, signature: str) -> None:
        super().__init__(f"a run of signature {signature} on made-up inputs was ended")
        self.signature = signature


class Openable(Protocol):
    """A session, by whatever API; see `c_api.CApiSession`."""

    def make_call(
        self,
        feeds: list[str],
        fetches: list[str],
        targets: list[str] | None = None,
        timeout_s: float | None = None,
    ) -> Callable[..., list[Any]]:
        """A callable: arrays in the order of `feeds` in, values in that of `fetches` out."""
        ...

    def trace(self, feeds: list[str], fetches: list[str], arrays: Iterable[Any]) -> Any:
        """One run, and the `tensorflow.RunMetadata` that tells where each operation ran."""
        ...

    def interrupt(self) -> None:
        """End the runs under way, from any thread. It answers no more calls."""
        ...

    def close(self) -> None:
        """Free it; no callable may be running."""
        ...


class SignatureCall:
    """A signature's callable: arrays in the order of its inputs, values in that of its outputs."""

    __slots__ = ("_call", "_outputs", "_run", "_timed")

    def __init__(
        self, call: Callable[..., list[Any]] | TimedRuns, outputs: tuple[str, ...]
    ) -> None:
        self._call = call  # keeps what `_run` points to
        self._timed = isinstance(call, TimedRuns)
        self._run: Callable[[tuple[Any, ...], Any], list[Any]]
        self._run = call if isinstance(call, TimedRuns) else c_api.without_wrapper(call)
        self._outputs = outputs

    def run(self, inputs: Tensors, deadline: float | None = None) -> dict[str, Any]:
        """All outputs, for all inputs, in the signature's order. Raises TensorFlow's errors.

        On a session whose runs are timed it ends soon after the deadline (monotonic seconds).
        """
        values = self._run(tuple(inputs.values()), deadline if self._timed else None)
        return dict(zip(self._outputs, values, strict=False))


class GivenBackCall(SignatureCall):
    """A callable of a signature that hands inputs through as outputs: no run fetches those."""

    __slots__ = ("_all", "_given")

    def __init__(
        self,
        call: Callable[..., list[Any]] | TimedRuns,
        fetched: tuple[str, ...],
        outputs: tuple[str, ...],
        given: Mapping[str, str],
    ) -> None:
        """`given` are inputs by the outputs that they are."""
        super().__init__(call, fetched)
        self._all = outputs
        self._given = given

    def run(self, inputs: Tensors, deadline: float | None = None) -> dict[str, Any]:
        """All outputs, for all inputs, in the signature's order."""
        found = super().run(inputs, deadline) if self._outputs else {}
        found |= {output: inputs[alias] for output, alias in self._given.items()}
        return {alias: found[alias] for alias in self._all}


class RunningSession:
    """A session with one private callable per signature, and a count of the runs under way.

    Its owner may replace it while it is in use: `close` waits for the runs that have begun.
    """

    __slots__ = (
        "_backend",
        "_idle",
        "_lock",
        "_narrow",
        "_users",
        "calls",
        "enter",
        "interrupted",
        "leave",
        "mergeable",
        "on_overdue",
        "optimised",
        "options",
        "ran",
        "runs",
        "slowest_s",
    )

    def __init__(
        self,
        backend: Openable | ObjectModel,
        signatures: Mapping[str, Signature],
        options: SessionOptions,
        optimised: bool = False,
    ) -> None:
        self._backend = backend
        self.options = options
        self.optimised = optimised
        self.ran: Ran | None = None  # what its operations were seen to run on, if anybody looked
        self.runs: dict[int, Waiting] = {}  # who waits for each run under way, by its thread
        self.interrupted = False
        self.on_overdue: Callable[[RunningSession], None] = RunningSession.interrupt
        try:
            self.calls = _signature_calls(backend, signatures, options.timed)
        except BaseException:
            backend.close()
            raise
        self.slowest_s = 0.0  # of the signatures' fastest runs while warming; 0: none was measured
        self.mergeable = NOT_TRIED
        self._idle = threading.Event()
        self._lock = threading.Lock()
        self._narrow: dict[tuple[str, frozenset[str]], SignatureCall] = {}  # guarded by _lock
        self._users = RefCount(self._idle.set)
        # Begin a run (False once closing has begun: take the newer session), and end it.
        self.enter = self._users.enter
        self.leave = self._users.leave
        if options.limits.watch is not None:
            options.limits.watch.add(self)

    @property
    def threads(self) -> int:
        """Those of its own that an operation uses."""
        return self.options.threads

    def call_for(self, signature: Signature, wanted: Collection[str]) -> SignatureCall:
        """What computes these outputs alone, as a session's run does; within `enter` and `leave`.

        One of all outputs, where more subsets were asked for than are kept. Raises TensorFlow's
        errors.
        """
        key = (signature.name, frozenset(wanted))
        found = self._narrow.get(key)
        if found is not None:
            return found
        outputs = {a: spec for a, spec in signature.outputs.items() if a in key[1]}
        with self._lock:
            if key not in self._narrow:
                if len(outputs) == len(signature.outputs) or len(self._narrow) >= _MAX_NARROW:
                    return self.calls[signature.name]
                narrow = dataclasses.replace(signature, outputs=outputs)
                self._narrow[key] = _signature_call(self._backend, narrow, self.options.timed)
            return self._narrow[key]

    def look(self, signatures: Mapping[str, Signature], warm: Mapping[str, bool]) -> None:
        """See where its operations run, if there is more than one device that they could run on."""
        device = self.options.device
        if device is None or not self.options.has_choice:
            return
        traces, unseen = [], []
        for name, signature in signatures.items():
            trace = self._trace(signature) if warm[name] else None
            if trace is None:
                unseen.append(name)
            else:
                traces.append(trace)
        self.ran = where_it_ran(traces, device, unseen)

    def _trace(self, signature: Signature) -> Any:
        """The trace of a run on made-up inputs; None if there cannot be one."""
        inputs, backend = synthetic_inputs(signature, 1), self._backend
        if inputs is None or isinstance(backend, ObjectModel):
            return None
        feeds, fetches = _tensors(signature)
        try:
            with self._made_up(signature.name):
                return backend.trace(feeds, fetches, inputs.values())
        except MadeUpRunEnded:
            raise
        except Exception as error:
            _log.debug("signature %s is not traced: %s", signature.name, translate(error).message)
            return None

    @property
    def unwanted(self) -> bool:
        """Whether its version is not wanted any more."""
        return self.options.limits.cancelled.is_set()

    def run_made_up(self, name: str, inputs: Tensors) -> dict[str, Any]:
        """Run a signature on inputs that nobody sent, for as long as that may take.

        Raises MadeUpRunEnded if it took longer, or the version is not wanted any more: then the
        session answers no more calls. Raises TensorFlow's errors.
        """
        with self._made_up(name):
            return self.calls[name].run(inputs)

    @contextlib.contextmanager
    def _made_up(self, name: str) -> Iterator[None]:
        thread, run = threading.get_ident(), self.options.limits.made_up()
        self.runs[thread] = run
        try:
            yield
        except Exception as error:
            if self.interrupted:
                raise MadeUpRunEnded(name) from error
            raise
        finally:
            del self.runs[thread]
        if self.interrupted:  # the run was as quick as the watch
            raise MadeUpRunEnded(name)

    def overdue(self, *, stopping: bool) -> None:
        """A run goes on that nobody waits for; see `RunWatch`."""
        if self.interrupted:
            return
        if stopping:
            self.interrupt()
        else:
            self.on_overdue(self)

    def interrupt(self) -> None:
        """End the runs under way, with CANCELLED. It answers no more calls; close it."""
        self.interrupted = True
        self._backend.interrupt()

    def close(self, patience_s: float = 60.0) -> None:
        """Wait for the runs under way, but no longer than that, then free the session."""
        self._users.close()
        if not self._idle.wait(patience_s):
            _log.warning("runs are ended after %.0f s: their session is closed", patience_s)
            self.interrupt()
        if not self._idle.wait(_END_S):
            _log.error("a session is not freed: a run cannot be ended")
            return
        if self.options.limits.watch is not None:
            self.options.limits.watch.remove(self)
        self.on_overdue = RunningSession.interrupt  # lets go of its servable
        self.calls.clear()
        self._narrow.clear()
        self._backend.close()


def _signature_calls(
    backend: Openable | ObjectModel, signatures: Mapping[str, Signature], timed: bool
) -> dict[str, SignatureCall]:
    """A callable per signature; one that cannot be made costs its signature alone."""
    calls: dict[str, SignatureCall] = {}
    for name, signature in signatures.items():
        try:
            calls[name] = _signature_call(backend, signature, timed)
        except Exception as error:
            failure = translate(error)
            if failure.code not in _OF_THE_SIGNATURE:
                raise failure from error
            _log.warning("signature %s cannot be called: %s", name, failure.message)
            calls[name] = SignatureCall(_fails_with(failure), ())
    return calls


def _signature_call(
    backend: Openable | ObjectModel, signature: Signature, timed: bool
) -> SignatureCall:
    unserved = [alias for alias in signature.inputs if alias in signature.unserved]
    if unserved:  # nobody calls it: see `check_served`
        return SignatureCall(_fails_with(Unimplemented(signature.unserved[unserved[0]])), ())
    outputs = tuple(alias for alias in signature.outputs if alias not in signature.unserved)
    if isinstance(backend, ObjectModel):
        inputs = list(signature.inputs)
        return SignatureCall(
            backend.make_signature_call(signature.name, inputs, list(outputs)), outputs
        )
    feeds, fetches = _tensors(signature)
    given = _given_back(signature)
    call: Callable[..., list[Any]] | TimedRuns
    if not fetches:
        call = _fails_with(Internal("nothing to run"))
    elif timed:
        call = TimedRuns(lambda timeout_s: backend.make_call(feeds, fetches, None, timeout_s))
    else:
        call = backend.make_call(feeds, fetches)
    if not given:
        return SignatureCall(call, outputs)
    fetched = tuple(alias for alias in outputs if alias not in given)
    return GivenBackCall(call, fetched, outputs, given)


def _given_back(signature: Signature) -> dict[str, str]:
    """The inputs that it hands through, by the outputs that they are: a run cannot fetch them."""
    fed = {_full(spec.tensor_name): alias for alias, spec in signature.inputs.items()}
    return {
        output: fed[_full(spec.tensor_name)]
        for output, spec in signature.outputs.items()
        if _full(spec.tensor_name) in fed and output not in signature.unserved
    }


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _tensors(signature: Signature) -> tuple[list[str], list[str]]:
    """The names of the tensors that it feeds and fetches, in its order."""
    given = _given_back(signature)
    feeds = [spec.tensor_name for spec in signature.inputs.values()]
    fetches = [
        spec.tensor_name
        for alias, spec in signature.outputs.items()
        if alias not in given and alias not in signature.unserved
    ]
    return feeds, fetches


def _fails_with(error: ServingError) -> Callable[..., list[Any]]:
    """In the place of a callable that cannot be made."""

    def call(*arrays: Any) -> list[Any]:
        raise error

    return call


def measure(
    session: RunningSession, signatures: Mapping[str, Signature], warm: Mapping[str, bool]
) -> float:
    """Run every signature that may be run on made-up inputs; the seconds of the slowest one.

    0 if none could be measured.
    """
    return tried(session, signatures, warm).slowest_s


class Tried(NamedTuple):
    """What runs on made-up inputs have shown of a session."""

    slowest_s: float
    """Of the signatures' fastest runs; 0 if none succeeded."""
    wrong: ServingError | None
    """What speaks against this way of opening the model."""


def tried(
    session: RunningSession, signatures: Mapping[str, Signature], warm: Mapping[str, bool]
) -> Tried:
    """Run every signature that may be run on made-up inputs.

    Against a session speaks a variable that nobody has set, or that no run succeeds and one fails
    with an error that is not about its inputs.
    """
    slowest, failures = 0.0, []
    for name, signature in signatures.items():
        if warm[name]:
            seconds, failure = _warm_up(session, signature)
            slowest = max(slowest, seconds)
            failures += [failure] if failure is not None else []
    for failure in failures:
        if any(text in failure.message for text in _WRONG_VARIABLES):
            return Tried(slowest, failure)
    others = [f for f in failures if f.code not in _OF_THE_INPUTS]
    return Tried(slowest, others[0] if others and not slowest else None)


def _warm_up(session: RunningSession, signature: Signature) -> tuple[float, ServingError | None]:
    """Run a signature on made-up inputs; the fastest run's seconds, 0 if none succeeded."""
    inputs = synthetic_inputs(signature, 1)
    times: list[float] = []
    while inputs is not None and len(times) < _WARM_RUNS and sum(times) < _WARM_S:
        started = time.perf_counter()
        try:
            session.run_made_up(signature.name, inputs)
        except MadeUpRunEnded:
            raise
        except Exception as error:
            # Made-up inputs may be refused: that proves nothing.
            failure = translate(error)
            _log.debug("warm-up of signature %s: %s", signature.name, failure.message)
            return min(times, default=0.0), failure
        times.append(time.perf_counter() - started)
    return min(times, default=0.0), None


def same_answers(
    one: RunningSession,
    other: RunningSession,
    meta_graph: MetaGraph,
    warm: Mapping[str, bool],
) -> bool:
    """Whether two sessions answer made-up inputs alike; warms both."""
    features = example_features(meta_graph.graph())
    for name, signature in meta_graph.signatures.items():
        rows = 3 if varies(signature) else 1
        tried = (synthetic_inputs(signature, 1), varied_inputs(signature, rows, 1, features))
        for inputs in tried:
            if inputs is None or not warm[name]:
                continue
            if not agree(_answer(one, signature, inputs), _answer(other, signature, inputs)):
                return False
    return True


def _answer(session: RunningSession, signature: Signature, inputs: Tensors) -> list[Any] | str:
    try:
        return list(session.run_made_up(signature.name, inputs).values())
    except MadeUpRunEnded:
        raise
    except Exception as error:
        translated = translate(error)
        if isinstance(translated, InvalidArgument):
            return "InvalidArgument"
        raise translated from error
