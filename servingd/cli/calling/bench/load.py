"""Make load: callers that wait for each answer (closed loop), or calls at a rate (open loop)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from servingd.cli.calling.bench.figures import Call
from servingd.errors import ServingError

OneCall = Callable[[], object]
"""Calls the model once. Raises ServingError."""

_LATE_S = 5.0
"""Seconds after the end of a run in which answers still count as such."""


class Load:
    """Threads that call; each run starts its own, and ends them."""

    def __init__(self, call: OneCall, on_call: Callable[[], None]) -> None:
        """`call` calls the model, from any thread; `on_call` is told of each answer."""
        self._call = call
        self._on_call = on_call

    def closed(self, callers: int, seconds: float) -> list[Call]:
        """Let so many callers call, each as soon as it has its last answer."""
        end = time.perf_counter() + seconds

        def caller(calls: list[Call]) -> None:
            while (due := time.perf_counter()) < end:
                calls.append(self._timed(due))

        return self._run(callers, caller, seconds)

    def open(self, rate: float, seconds: float, most: int) -> list[Call]:
        """Call at a steady rate, whatever the answers, with `most` calls under way.

        A call that must wait for one of these is late, and that counts, as it would for users.
        """
        start, ticks = time.perf_counter(), itertools.count()

        def caller(calls: list[Call]) -> None:
            while (due := start + next(ticks) / rate) < start + seconds:
                pause = due - time.perf_counter()
                if pause > 0:
                    time.sleep(pause)
                calls.append(self._timed(due))

        return self._run(most, caller, seconds)

    def _run(
        self, threads: int, caller: Callable[[list[Call]], None], seconds: float
    ) -> list[Call]:
        found: list[list[Call]] = [[] for _ in range(threads)]
        running = [
            threading.Thread(target=caller, args=(calls,), name=f"caller-{n}", daemon=True)
            for n, calls in enumerate(found)
        ]
        for thread in running:
            thread.start()
        deadline = time.perf_counter() + seconds + _LATE_S
        for thread in running:
            thread.join(max(0.0, deadline - time.perf_counter()))
        return [call for calls in found for call in list(calls)]

    def _timed(self, due: float) -> Call:
        error = ""
        try:
            self._call()
        except ServingError as failure:
            error = failure.code.name
        self._on_call()
        return Call(due, time.perf_counter() - due, error)
