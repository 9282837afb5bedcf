"""Traces of what TensorFlow does in this process, taken while it serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from servingd.errors import AlreadyExists, InvalidArgument, ServingError, as_serving_error
from servingd.servables.tensorflow_runtime.runtime import is_loaded

MAX_SECONDS = 60.0
"""Seconds of a trace, at most: it grows in memory."""

_log = logging.getLogger(__name__)


class Profiler:
    """Takes one trace at a time, each in a thread `profiler` of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: threading.Event | None = None  # of the trace under way; guarded by _lock

    def profile(
        self,
        seconds: float,
        levels: tuple[int, int, int],
        done: Callable[[Mapping[str, bytes] | ServingError], None],
    ) -> None:
        """Trace for `seconds`, then call `done` with a serialised `tensorflow.profiler.XSpace`.

        It is under an empty name: this process is the only one.
        `levels` are those of the host, device and Python tracers. Raises InvalidArgument for a time
        that is too long, or AlreadyExists while another trace is taken. `done` is called from the
        profiler's thread.
        """
        if not 0 < seconds <= MAX_SECONDS:
            raise InvalidArgument(
                f"duration_ms: expected 1 to {MAX_SECONDS * 1000:.0f}, got {seconds * 1000:.0f}"
            )
        with self._lock:
            if self._ended is not None:
                raise AlreadyExists("another profile is being taken")
            ended = self._ended = threading.Event()
        threading.Thread(
            target=self._take, args=(seconds, levels, ended, done), name="profiler", daemon=True
        ).start()

    def terminate(self) -> None:
        """End the trace under way, if there is one; `done` gets it as far as it goes."""
        with self._lock:
            if self._ended is not None:
                self._ended.set()

    def _take(
        self,
        seconds: float,
        levels: tuple[int, int, int],
        ended: threading.Event,
        done: Callable[[Mapping[str, bytes] | ServingError], None],
    ) -> None:
        outcome: Mapping[str, bytes] | ServingError
        try:
            outcome = {"": _trace(seconds, levels, ended)}
        except Exception as error:
            _log.exception("a profile could not be taken")
            outcome = as_serving_error(error)
        with self._lock:
            self._ended = None
        done(outcome)


def _trace(seconds: float, levels: tuple[int, int, int], ended: threading.Event) -> bytes:
    """Return a trace of what TensorFlow does; empty while no model has needed it.

    TensorFlow is not imported for a trace: that takes longer than clients wait.
    """
    if not is_loaded():
        ended.wait(seconds)
        return b""
    from tensorflow.python.profiler.internal import _pywrap_profiler

    host, device, python = levels
    session = _pywrap_profiler.ProfilerSession()
    options = {
        "host_tracer_level": host,
        "device_tracer_level": device,
        "python_tracer_level": python,
    }
    session.start("", options)
    ended.wait(seconds)
    trace: bytes = session.stop()
    return trace
