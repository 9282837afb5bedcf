"""ProfilerService: trace the running server. It never writes a file, whatever a request asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from servingd.errors import Code, ServingError
from servingd.frontends.call import CallContext, to_serving_error
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Reply
from servingd.wire import protos

_TOOL = "xplane.pb"
"""The name under which TensorFlow's profiling clients save a trace; they write the file."""

_DEFAULT_LEVELS = (2, 1, 0)


class Profiler(Protocol):
    """Takes traces, one at a time."""

    def profile(
        self,
        seconds: float,
        levels: tuple[int, int, int],
        done: Callable[[Mapping[str, bytes] | ServingError], None],
    ) -> None:
        """Trace for so many seconds; `levels` are those of the host, device and Python tracers.

        `done` gets a trace for each process, by its name; alone it has none.
        """
        ...

    def terminate(self) -> None:
        """End the trace under way."""
        ...


class ProfilerMethods:
    """The handlers of ProfilerService."""

    def __init__(self, context: CallContext, parser: MessageParser, profiler: Profiler) -> None:
        self._context = context
        self._parser = parser
        self._profiler = profiler

    def profile(self, payload: bytes, reply: Reply) -> None:
        """Answer with a trace, in the form that TensorFlow's clients save for TensorBoard."""
        started = time.perf_counter()

        def done(outcome: Mapping[str, bytes] | ServingError) -> None:
            if isinstance(outcome, ServingError):
                self._fail("Profile", outcome, started, reply)
                return
            response = protos.ProfileResponse(empty_trace=not any(outcome.values()))
            for process, trace in sorted(outcome.items()):
                response.tool_data.add(name=f"{process}.{_TOOL}" if process else _TOOL, data=trace)
            reply.send(response.SerializeToString())
            self._record("Profile", Code.OK, started)

        try:
            request = self._parser.parse(protos.ProfileRequest, payload)
            levels = _DEFAULT_LEVELS
            if request.HasField("opts") and request.opts.version:
                levels = (
                    request.opts.host_tracer_level,
                    request.opts.device_tracer_level,
                    request.opts.python_tracer_level,
                )
            self._profiler.profile(request.duration_ms / 1000, levels, done)
        except Exception as error:
            self._fail("Profile", to_serving_error(error, "Profile"), started, reply)

    def terminate(self, payload: bytes, reply: Reply) -> None:
        """End the trace under way."""
        started = time.perf_counter()
        try:
            self._parser.parse(protos.TerminateRequest, payload)
            self._profiler.terminate()
            reply.send(b"")
            self._record("Terminate", Code.OK, started)
        except Exception as error:
            self._fail("Terminate", to_serving_error(error, "Terminate"), started, reply)

    def _fail(self, method: str, error: ServingError, started: float, reply: Reply) -> None:
        reply.fail(error.code, error.message)
        self._record(method, error.code, started)

    def _record(self, method: str, code: Code, started: float) -> None:
        seconds = time.perf_counter() - started
        self._context.metrics.record("", 0, "", method, code, seconds)
