"""A SavedModel that can be called, however it was opened: a callable per signature."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from servingd.core.ref_count import RefCount
from servingd.core.resources.placement import ObservedDevices
from servingd.core.types import Signature, Tensors
from servingd.errors import DeadlineExceeded, Unimplemented
from servingd.servables.saved_model.merging.row_wise.verdicts import NOT_TRIED
from servingd.servables.saved_model.session.callables import (
    SessionBackend,
    SignatureCallable,
    fed_and_fetched,
    make_callable,
    make_callables,
)
from servingd.servables.saved_model.session.device_assignment import observe_devices
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.saved_model.session.python_session import ObjectModel
from servingd.servables.saved_model.session.run_watch import RunOwner
from servingd.servables.synthetic_inputs import synthetic_inputs
from servingd.servables.tensorflow_runtime.runtime import translate

_MAX_SUBSET_CALLS = 64
"""Callables of some outputs that a session keeps; each holds a plan of the graph in memory.

Clients use few subsets. Past this many, a call computes all outputs.
"""

_INTERRUPT_TIMEOUT_S = 10.0
"""Seconds that an interrupted run gets to notice: an operation under way finishes first."""

_log = logging.getLogger(__name__)


class SyntheticRunEnded(DeadlineExceeded):
    """A run on synthetic inputs took too long and was ended, and its session with it."""

    def __init__(self, signature: str) -> None:
        super().__init__(f"a run of signature {signature} on made-up inputs was ended")
        self.signature = signature


class RunningSession:
    """A session with one private callable per signature, and a count of the runs under way.

    Its owner may replace it while it is in use: `close` waits for the runs that have begun. A run
    is bracketed by `enter` and `leave`; `enter` returns False once closing has begun: then take the
    newer session.
    """

    __slots__ = (
        "_backend",
        "_idle",
        "_lock",
        "_subset_calls",
        "_users",
        "calls",
        "enter",
        "interrupted",
        "leave",
        "mapped",
        "mergeable",
        "observed",
        "on_overdue",
        "optimised",
        "options",
        "runs",
        "slowest_s",
    )

    def __init__(
        self,
        backend: SessionBackend | ObjectModel,
        signatures: Mapping[str, Signature],
        options: SessionOptions,
        optimised: bool = False,
    ) -> None:
        """Make the callables. Takes the backend over, and closes it if that fails."""
        self._backend = backend
        self.options = options
        self.optimised = optimised
        self.observed: ObservedDevices | None = None  # set by `trace_devices`
        # Who waits for each run under way, by its thread.
        self.runs: dict[int, RunOwner] = options.limits.new_runs()
        self.interrupted = False
        self.mapped: tuple[int, ...] = ()  # bytes of each variable that is mapped from a file
        self.on_overdue: Callable[[RunningSession], None] = RunningSession.interrupt
        try:
            self.calls = make_callables(backend, signatures, options.timed)
        except BaseException:
            backend.close()
            raise
        self.slowest_s = 0.0  # of the slowest signature, when it was warmed; 0: not measured
        self.mergeable = NOT_TRIED
        self._idle = threading.Event()
        self._lock = threading.Lock()
        self._subset_calls: dict[
            tuple[str, frozenset[str]], SignatureCallable
        ] = {}  # guarded by _lock
        self._users = RefCount(self._idle.set)
        self.enter = self._users.enter
        self.leave = self._users.leave
        if options.limits.watch is not None:
            options.limits.watch.add(self)

    @property
    def threads(self) -> int:
        """Intra-op threads of the session's own."""
        return self.options.threads

    def read(self, tensors: Collection[str]) -> list[Any]:
        """Return the values of tensors that need no inputs; those of variables are not copied.

        Raises TensorFlow's errors, or Unimplemented where the model runs as an object.
        """
        if not tensors:
            return []
        if isinstance(self._backend, ObjectModel):
            raise Unimplemented("it runs as an object")
        return self._backend.make_call([], list(tensors))()

    def call_for(self, signature: Signature, wanted: Collection[str]) -> SignatureCallable:
        """Return the callable that computes the outputs `wanted` alone, as `Session::Run` does.

        Call between `enter` and `leave`. Returns the callable of all outputs where too many subsets
        were asked for before. Raises TensorFlow's errors.
        """
        key = (signature.name, frozenset(wanted))
        found = self._subset_calls.get(key)
        if found is not None:
            return found
        outputs = {a: spec for a, spec in signature.outputs.items() if a in key[1]}
        with self._lock:
            calls = self._subset_calls
            if key not in calls:
                if len(outputs) == len(signature.outputs) or len(calls) >= _MAX_SUBSET_CALLS:
                    return self.calls[signature.name]
                subset = dataclasses.replace(signature, outputs=outputs)
                calls[key] = make_callable(self._backend, subset, self.options.timed)
            return calls[key]

    def trace_devices(
        self, signatures: Mapping[str, Signature], safe_to_run: Mapping[str, bool]
    ) -> None:
        """Find out where the operations run, if there are several devices; set `observed`.

        Raises SyntheticRunEnded.
        """
        device = self.options.device
        if device is None or not self.options.has_choice:
            return
        traces, unseen = [], []
        for name, signature in signatures.items():
            trace = self._trace(signature) if safe_to_run[name] else None
            if trace is None:
                unseen.append(name)
            else:
                traces.append(trace)
        self.observed = observe_devices(traces, device, unseen)

    def _trace(self, signature: Signature) -> Any:
        """Return the `tensorflow.RunMetadata` of a run on synthetic inputs; None if it fails."""
        inputs, backend = synthetic_inputs(signature, 1), self._backend
        if inputs is None or isinstance(backend, ObjectModel):
            return None
        feeds, fetches = fed_and_fetched(signature)
        try:
            with self._synthetic_run(signature.name):
                return backend.trace(feeds, fetches, inputs.values())
        except SyntheticRunEnded:
            raise
        except Exception as error:
            _log.debug("signature %s is not traced: %s", signature.name, translate(error).message)
            return None

    @property
    def cancelled(self) -> bool:
        """Whether the version is being unloaded, or its load was cancelled."""
        return self.options.limits.cancelled.is_set()

    def run_synthetic(self, name: str, inputs: Tensors) -> dict[str, Any]:
        """Run a signature on inputs that no client sent, for `RunLimits.max_synthetic_s` at most.

        Raises SyntheticRunEnded if it took longer, or the version was cancelled: then the session
        answers no more calls. Raises TensorFlow's errors.
        """
        with self._synthetic_run(name):
            return self.calls[name].run(inputs)

    @contextlib.contextmanager
    def _synthetic_run(self, name: str) -> Iterator[None]:
        """Register this thread's run with the watch, with limits on its time and memory."""
        thread, run = threading.get_ident(), self.options.limits.synthetic_run()
        self.runs[thread] = run
        try:
            yield
        except Exception as error:
            if self.interrupted:
                raise SyntheticRunEnded(name) from error
            raise
        finally:
            del self.runs[thread]
        if self.interrupted:  # the run ended by itself, but the session had been closed before
            raise SyntheticRunEnded(name)

    def overdue(self, *, stopping: bool) -> None:
        """Handle a run that goes on though nobody waits for it; called by the `RunWatch`."""
        if self.interrupted:
            return
        if stopping:
            self.interrupt()
        else:
            self.on_overdue(self)

    def interrupt(self) -> None:
        """End the runs under way with CANCELLED. The session answers no more calls; close it."""
        self.interrupted = True
        self._backend.interrupt()

    def close(self, timeout_s: float = 60.0) -> None:
        """Wait for the runs under way, interrupt them after `timeout_s`, then free the session."""
        self._users.close()
        if not self._idle.wait(timeout_s):
            _log.warning("runs are ended after %.0f s: their session is closed", timeout_s)
            self.interrupt()
        if not self._idle.wait(_INTERRUPT_TIMEOUT_S):
            _log.error("a session is not freed: a run cannot be ended")
            return
        if self.options.limits.watch is not None:
            self.options.limits.watch.remove(self)
        self.on_overdue = RunningSession.interrupt  # lets go of its servable
        self.calls.clear()
        self._subset_calls.clear()
        self._backend.close()
