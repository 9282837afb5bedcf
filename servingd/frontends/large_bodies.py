"""Read large HTTP bodies on workers, and only as many at once as there is memory for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from servingd.errors import ServingError, Unavailable
from servingd.frontends.http.content_coding import inflated_size
from servingd.frontends.http.messages import HttpRequest
from servingd.frontends.workers import Workers
from servingd.runtime.byte_budget import ByteBudget
from servingd.wire.json.pieces import LARGE_BYTES

_WEIGHT = 8
"""The memory that reading a body takes (text, numbers, tensors), as a multiple of its size."""

_MAX_WAITING = 256
_RETRY_AFTER_S = 1.0


class Waiting(Protocol):
    """Whoever waits for an answer."""

    def alive(self) -> bool:
        """Return whether somebody still waits."""
        ...

    def expire(self) -> None:
        """Answer after the deadline, unless there was an answer."""
        ...


class LargeBodies:
    """Starts calls on the threads of `workers`. Thread-safe."""

    def __init__(self, workers: Workers, budget: ByteBudget) -> None:
        self._workers = workers
        self._budget = budget
        self._lock = threading.Lock()
        self._waiting = 0  # for a worker; guarded by _lock

    def start(
        self,
        request: HttpRequest,
        rest: Waiting,
        begin: Callable[[], None],
        fail: Callable[[ServingError], None],
    ) -> None:
        """Call `begin` on a worker, in its turn; or `fail` if the body is refused or malformed.

        Neither is called if nobody waits any more.
        """

        def weigh() -> None:
            if rest.alive():
                self._weigh(request, rest, begin, fail)
            else:
                rest.expire()

        try:
            self.run(weigh)
        except ServingError as error:
            fail(error)

    def run(self, job: Callable[[], None]) -> None:
        """Run a job on a worker. Raises Unavailable if too many jobs wait."""
        with self._lock:
            full = self._waiting >= _MAX_WAITING
            self._waiting += not full
        if full:
            error = Unavailable(f"{_MAX_WAITING} requests are waiting for a thread already")
            error.retry_after_s = _RETRY_AFTER_S
            raise error

        def run() -> None:
            with self._lock:
                self._waiting -= 1
            job()

        self._workers.submit(run)

    def _weigh(
        self,
        request: HttpRequest,
        rest: Waiting,
        begin: Callable[[], None],
        fail: Callable[[ServingError], None],
    ) -> None:
        """Begin a small body at once; let a large one wait for its turn. Runs on a worker."""
        body = request.body
        try:
            size = inflated_size(request.headers, body)
        except ServingError as error:
            fail(error)
            return
        if size < LARGE_BYTES:
            begin()
            return
        weight = _WEIGHT * size

        def run() -> None:
            try:
                if rest.alive():
                    begin()
                else:
                    rest.expire()
            finally:
                self._budget.give_back(weight)

        try:
            self._budget.ask(weight, len(body), rest.alive, lambda: self._workers.submit(run))
        except ServingError as error:
            fail(error)
