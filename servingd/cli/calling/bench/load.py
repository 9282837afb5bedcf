"""Make load: callers that wait for each answer (closed loop), or calls at a rate (open loop)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from servingd.cli.calling.bench.figures import Call
from servingd.errors import Code, ServingError

OneCall = Callable[[], object]
"""Calls the model once. Whatever it raises is counted as a failed call."""

_LATE_S = 5.0
"""Seconds after the end of a run in which answers still count as such."""


class _Caller:
    """What one thread has called: written by this thread, read by any."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        """When each call was due; the last may have no answer yet."""
        self.ended: list[Call] = []

    def calls(self) -> list[Call]:
        """Return all calls; one that is still under way is late."""
        begun = list(self.begun)  # before those that ended: each call is there exactly once
        ended = list(self.ended)
        now = time.perf_counter()
        late = begun[len(ended) :]
        return ended + [Call(due, now - due, Code.DEADLINE_EXCEEDED.name) for due in late]


class Load:
    """Threads that call; each run starts its own, and waits for their last answers."""

    def __init__(
        self, call: OneCall, on_call: Callable[[], None], *, late_s: float = _LATE_S
    ) -> None:
        """Make load of calls.

        Args:
            call: Calls the model, from any thread.
            on_call: Is told of each answer, by the thread that called.
            late_s: Seconds after the end of a run in which answers still count. A call that has
                none then counts as DEADLINE_EXCEEDED; its thread is left behind.
        """
        self._call = call
        self._on_call = on_call
        self._late_s = late_s

    def closed(self, callers: int, seconds: float) -> list[Call]:
        """Let so many callers call, each as soon as it has its last answer."""
        end = time.perf_counter() + seconds

        def call(caller: _Caller) -> None:
            while (due := time.perf_counter()) < end:
                self._time(caller, due)

        return self._run(callers, call, seconds)

    def open(self, rate: float, seconds: float, most: int) -> list[Call]:
        """Call at a steady rate, whatever the answers, with `most` calls under way.

        A call that must wait for one of these is late, and that counts, as it would for users.
        """
        start, ticks = time.perf_counter(), itertools.count()

        def call(caller: _Caller) -> None:
            while (due := start + next(ticks) / rate) < start + seconds:
                pause = due - time.perf_counter()
                if pause > 0:
                    time.sleep(pause)
                self._time(caller, due)

        return self._run(most, call, seconds)

    def _run(self, threads: int, call: Callable[[_Caller], None], seconds: float) -> list[Call]:
        callers = [_Caller() for _ in range(threads)]
        running = [
            threading.Thread(target=call, args=(caller,), name=f"caller-{n}", daemon=True)
            for n, caller in enumerate(callers)
        ]
        for thread in running:
            thread.start()
        deadline = time.perf_counter() + seconds + self._late_s
        for thread in running:
            thread.join(max(0.0, deadline - time.perf_counter()))
        return [each for caller in callers for each in caller.calls()]

    def _time(self, caller: _Caller, due: float) -> None:
        caller.begun.append(due)
        error = ""
        try:
            self._call()
        except ServingError as failure:
            error = failure.code.name
        except Exception as failure:  # the caller must go on, and the failure be seen
            error = type(failure).__name__
        caller.ended.append(Call(due, time.perf_counter() - due, error))
        self._on_call()
