"""Reads the configuration file again and applies it: at an interval, and on request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from servingd.config.models import ModelConfig
from servingd.errors import ServingError

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
        self._due = threading.Event()
        self._stopping = False
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="config-file", daemon=True)

    def start(self) -> None:
        """Begin; the first reading is after one interval, or on request."""
        self._thread.start()

    def read_now(self) -> None:
        """Read and apply the file soon; from any thread, returns at once."""
        self._due.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._due.set()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            requested = self._due.wait(self._wait_s)
            if self._stopping:
                return
            self._due.clear()
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
