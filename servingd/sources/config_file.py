"""Reads the configuration file again and applies it: at an interval, and on request."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from servingd.config.models import ModelConfig
from servingd.errors import ResourceExhausted, ServingError

_MAX_JOBS = 64
_STOP_S = 5.0

_log = logging.getLogger(__name__)


class ConfigFilePoll:
    """Owns the thread `config-file`.

    As in TensorFlow Serving, the file overrules what a ReloadConfig call has set since.
    """

    def __init__(
        self,
        read: Callable[[], tuple[ModelConfig, ...]],
        apply: Callable[[tuple[ModelConfig, ...]], None],
        wait_s: float,
        on_applied: Callable[[bool], None],
    ) -> None:
        """`read` returns all models; `apply` replaces them, and returns at once.

        Both may raise a ServingError, with nothing changed. `wait_s` is the interval; 0 or below:
        read on request only. `on_applied` is called after each reading, with whether it was
        applied.
        """
        self._read = read
        self._apply = apply
        self._wait_s = wait_s if wait_s > 0 else None
        self._on_applied = on_applied
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(_MAX_JOBS)
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="config-file", daemon=True)

    def start(self) -> None:
        """Begin; the first reading is after one interval, or on request."""
        self._thread.start()

    def read_now(self) -> None:
        """Read and apply the file soon; from any thread, returns at once."""
        with contextlib.suppress(queue.Full):  # as many readings are to come already
            self._jobs.put_nowait(lambda: self._read_once(requested=True))

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job soon, between two readings of the file; it must not raise. From any thread.

        Raises ResourceExhausted if too many wait.
        """
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise ResourceExhausted(
                f"{_MAX_JOBS} changes of the configuration wait already"
            ) from None

    def stop(self) -> None:
        """End the thread, after the jobs that wait."""
        with contextlib.suppress(queue.Full):
            self._jobs.put(None, timeout=_STOP_S)
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._wait_s)
            except queue.Empty:
                self._read_once(requested=False)
                continue
            if job is None:
                return
            try:
                job()
            except BaseException:  # the thread must be there for the next one
                _log.exception("a change of the configuration failed")

    def _read_once(self, *, requested: bool) -> None:
        problem = self._read_and_apply()
        self._log_problem(problem, always=requested)
        self._on_applied(not problem)

    def _read_and_apply(self) -> str:
        """Return what went wrong; empty if nothing did."""
        try:
            models = self._read()
        except (ServingError, OSError) as error:
            return f"Failed to read ModelServerConfig file: {error}"
        except BaseException as error:  # the thread must be there for the next reading
            _log.exception("the ModelServerConfig file cannot be read")
            return f"Failed to read ModelServerConfig file: {error!r}"
        try:
            self._apply(models)
        except ServingError as error:
            return f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.message}"
        except BaseException as error:
            _log.exception("the ModelServerConfig file cannot be applied")
            return f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error!r}"
        return ""

    def _log_problem(self, problem: str, always: bool) -> None:
        """Log a problem when it begins; `always`: whenever it is found."""
        if problem and (always or problem != self._problem):
            _log.error("%s", problem)
        self._problem = problem
