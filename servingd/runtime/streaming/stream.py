"""One stream: its steps, taken in turns as its reader wants parts.

Theory of operation. A stream holds a thread only while it takes a step. Its *turn* is a job on
the pool of its version: if the reader wants a part, one step is taken, and when its outcome is
there the next turn is queued behind those of the version's other streams. If the reader wants none,
the stream is idle, and whoever sends the parts wakes it: when the reader has taken some, and when
nobody waits any more. So a reader that is slow costs no thread, and one that has gone ends the
stream at its next turn, at the latest one step later.

`wake` during a turn does nothing, because each turn looks again before the stream becomes idle.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from servingd.core.call_protocols import PartsReceiver
from servingd.errors import Cancelled, DeadlineExceeded, ServingError, as_serving_error
from servingd.runtime.streaming.steps import Outcome, Steps
from servingd.runtime.threads import Job

_log = logging.getLogger(__name__)


class Stream:
    """One answer in parts. Thread-safe; its steps are taken one at a time."""

    def __init__(
        self,
        steps: Steps,
        receiver: PartsReceiver,
        submit: Callable[[Job], None],
        over: Callable[[Stream], None],
    ) -> None:
        """`submit` queues a turn. `over` is called once, when no further step will be taken."""
        self._steps = steps
        self._receiver = receiver
        self._submit = submit
        self._on_over = over
        self._lock = threading.Lock()
        self._busy = False  # whether a turn is queued or under way; guarded by _lock
        self._idle_since = time.monotonic()  # guarded by _lock; only if it is not busy
        self._over = False  # guarded by _lock

    def wake(self) -> None:
        """Look whether it is time for a step, or for the end. Returns at once."""
        with self._lock:
            if self._busy or self._over:
                return
            self._busy = True
        self._submit(self._turn)

    def stalled(self, since: float) -> bool:
        """Return whether its reader has taken no part since that time (monotonic seconds)."""
        with self._lock:
            return not (self._busy or self._over) and self._idle_since < since

    def end(self, error: ServingError) -> None:
        """End the answer with an error now; the step under way, if any, is the last."""
        self._receiver.fail(error)
        self.wake()

    def _turn(self) -> None:
        """Take a step if the reader wants a part, else become idle; on a thread of the pool."""
        receiver = self._receiver
        if not receiver.alive():
            self._finish(_too_late(receiver.deadline))
        elif receiver.wants_part():
            try:
                self._steps.step(receiver, self._take)
            except ServingError as error:
                self._finish(error)
            except BaseException as error:  # a model's own code may even raise SystemExit
                _log.exception("a stream failed")
                self._finish(as_serving_error(error))
        else:
            with self._lock:
                self._busy = False
                self._idle_since = time.monotonic()
            if receiver.wants_part() or not receiver.alive():  # since then
                self.wake()

    def _take(self, outcome: Outcome) -> None:
        """Send what came of a step, and queue the next turn."""
        if outcome.error is not None:
            self._finish(outcome.error)
            return
        if outcome.part is not None:
            try:
                self._receiver.part(outcome.part)
            except Exception as error:
                if not isinstance(error, ServingError):
                    _log.exception("a part of a stream could not be sent")
                self._finish(as_serving_error(error))
                return
        if outcome.last:
            self._finish(None)
        else:
            self._submit(self._turn)

    def _finish(self, error: ServingError | None) -> None:
        """End the answer. A caller that then begins another one finds room for it."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self._steps.close()
        self._on_over(self)
        try:
            if error is None:
                self._receiver.end()
            else:
                self._receiver.fail(error)
        finally:
            self._receiver.close()


def _too_late(deadline: float | None) -> ServingError:
    """Return the error of an answer that nobody waits for."""
    if deadline is not None and time.monotonic() >= deadline:
        return DeadlineExceeded("Deadline Exceeded")
    return Cancelled("nobody waits for the answer any more")
