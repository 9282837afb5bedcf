"""All streams that are open, and the runners that open them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from servingd.core.call_protocols import PartsReceiver, SignatureRunner, StreamRunner
from servingd.core.servable import Servable, Streams
from servingd.core.stream_pairs import StreamPair, find_pairs
from servingd.core.types import ServableId, Signature, Tensors
from servingd.errors import Cancelled, ResourceExhausted, ServingError
from servingd.runtime.streaming.pool import StepPool
from servingd.runtime.streaming.steps import GeneratorSteps, PairSteps, Steps, WholeSteps
from servingd.runtime.streaming.stream import Stream

_THREADS = 16
"""Threads of one version's streams: steps that hang hold these, and no other thread."""

_RETRY_AFTER_S = 1.0

_STALL_S = 120.0
"""Seconds after which a stream is ended whose reader takes nothing: it would keep its version."""

_log = logging.getLogger(__name__)


class OpenStreams:
    """The streams of all models, counted by model. Thread-safe.

    While there are any, the thread `streams` ends those that nobody reads.
    """

    def __init__(self, most: int = 256, stall_s: float = _STALL_S) -> None:
        """`most` is how many streams of one model may be open."""
        self._most = most
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._watched = False  # whether the thread runs; guarded by _lock
        self._open: dict[str, set[Stream]] = {}  # by model; guarded by _lock
        self._end: ServingError | None = None  # guarded by _lock

    def enter(self, model: str, stream: Stream) -> None:
        """Count a stream. Raises ResourceExhausted, or the error with which all have ended."""
        with self._lock:
            if self._end is not None:
                raise self._end
            streams = self._open.setdefault(model, set())
            if len(streams) < self._most:
                streams.add(stream)
                if not self._watched:
                    self._watched = True
                    threading.Thread(target=self._watch, name="streams", daemon=True).start()
                return
        error = ResourceExhausted(f"{self._most} streams of model {model} are open already")
        error.retry_after_s = _RETRY_AFTER_S
        raise error

    def leave(self, model: str, stream: Stream) -> None:
        """Uncount a stream."""
        with self._lock:
            streams = self._open.get(model, set())
            streams.discard(stream)
            if not streams:
                self._open.pop(model, None)

    def count(self, model: str) -> int:
        """Return how many streams of a model are open."""
        with self._lock:
            return len(self._open.get(model, ()))

    def _watch(self) -> None:
        """End streams that nobody reads, until there are none; the thread's main function."""
        pause = threading.Event()
        while True:
            pause.wait(self._stall_s / 4)
            with self._lock:
                streams = self._all()
                if not streams:
                    self._watched = False
                    return
            since = time.monotonic() - self._stall_s
            for stream in streams:
                if stream.stalled(since):
                    stream.end(Cancelled(f"nothing was read for {self._stall_s:g} s"))

    def _all(self) -> list[Stream]:
        return [stream for streams in self._open.values() for stream in streams]

    def end_all(self, error: ServingError) -> int:
        """End every stream with an error, and refuse new ones with it; return how many."""
        with self._lock:
            self._end = error
            streams = self._all()
        for stream in streams:
            stream.end(error)
        return len(streams)


class VersionStreams:
    """The ways to stream one ready version's signatures; see `StreamRunners`. Thread-safe.

    It starts no thread before the first stream, and makes a runner when it is first asked for.
    """

    def __init__(
        self,
        servable_id: ServableId,
        servable: Servable,
        runners: Mapping[str, SignatureRunner],
        open_streams: OpenStreams,
    ) -> None:
        """Find the version's pairs; log what looks like one and is none."""
        self._model = servable_id.name
        self._servable = servable
        self._runners = runners
        self._open = open_streams
        self._pool = StepPool(f"stream-{servable_id.name}:{servable_id.version}", _THREADS)
        self._made: dict[str, StreamRunner] = {}
        self._pairs, misfits = find_pairs({n: r.signature for n, r in runners.items()})
        for name, reason in misfits.items():
            _log.warning("%s of %s is not streamed step by step: %s", name, servable_id, reason)

    def get(self, name: str) -> StreamRunner | None:
        """Return the runner of a generator, of a pair or of a plain signature, in this order."""
        made = self._made.get(name)
        if made is None:
            found = self._make(name)
            if found is None:
                return None
            made = self._made.setdefault(name, found)
        return made

    def close(self) -> None:
        """End the threads: the version has been drained."""
        self._pool.close()

    def _make(self, name: str) -> StreamRunner | None:
        runner, servable = self._runners.get(name), self._servable
        if runner is not None and isinstance(servable, Streams) and servable.streams(name):
            signature = runner.signature
            return _Runner(
                signature,
                lambda inputs: GeneratorSteps(lambda: servable.stream(signature, inputs)),
                self._begin,
            )
        if name in self._pairs:
            return self._of_pair(self._pairs[name])
        if runner is None:
            return None
        return _Runner(runner.signature, lambda inputs: WholeSteps(runner, inputs), self._begin)

    def _of_pair(self, pair: StreamPair) -> StreamRunner:
        init, step = self._runners[pair.init], self._runners[pair.step]
        return _Runner(
            pair.signature, lambda inputs: PairSteps(pair, init, step, inputs), self._begin
        )

    def _begin(self, steps: Steps, receiver: PartsReceiver) -> None:
        """Count a stream and queue its first turn."""
        stream = Stream(
            steps, receiver, self._pool.submit, lambda ended: self._open.leave(self._model, ended)
        )
        self._open.enter(self._model, stream)
        receiver.watch(stream.wake)
        stream.wake()


class _Runner:
    """One signature's streams; see `StreamRunner`."""

    __slots__ = ("_begin", "_make_steps", "notes", "signature")

    def __init__(
        self,
        signature: Signature,
        make_steps: Callable[[Tensors], Steps],
        begin: Callable[[Steps, PartsReceiver], None],
    ) -> None:
        self.signature = signature
        self.notes: dict[str, Any] = {}
        self._make_steps = make_steps
        self._begin = begin

    def run(self, inputs: Tensors, receiver: PartsReceiver) -> None:
        """Begin to answer a call; see `StreamRunner`."""
        self._begin(self._make_steps(inputs), receiver)
