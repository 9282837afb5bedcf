"""The configuration file, read and applied again: at an interval, and when somebody asks for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

from servingd.config.models import ModelConfig
from servingd.errors import ServingError

Apply: TypeAlias = Callable[[tuple[ModelConfig, ...]], None]
"""Replaces all models; returns at once. Raises a ServingError, with nothing changed."""

_log = logging.getLogger(__name__)


class ConfigFilePoll:
    """Owns the thread `config-file`. What has been reloaded by a call meanwhile is overruled.

    Without a wait above 0 it reads when it is told to, and only then.
    """

    def __init__(
        self,
        read: Callable[[], tuple[ModelConfig, ...]],
        apply: Apply,
        wait_s: float,
        ended: Callable[[bool], None] = lambda succeeded: None,
    ) -> None:
        """`ended` is told of each reading whether what the file says holds now."""
        self._read = read
        self._apply = apply
        self._wait_s = wait_s if wait_s > 0 else None
        self._ended = ended
        self._due = threading.Event()
        self._stopping = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="config-file", daemon=True)

    def start(self) -> None:
        """Begin to wait for the first reading."""
        self._thread.start()

    def read_now(self) -> None:
        """Read and apply the file soon; from any thread, returns at once."""
        self._due.set()

    def stop(self) -> None:
        """End."""
        self._stopping = True
        self._due.set()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            asked = self._due.wait(self._wait_s)
            if self._stopping:
                return
            self._due.clear()
            trouble = self._read_and_apply()
            self._complain(trouble, always=asked)
            self._ended(not trouble)

    def _read_and_apply(self) -> str:
        """What went wrong, or nothing."""
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

    def _complain(self, trouble: str, always: bool) -> None:
        """Log a trouble when it begins, or when somebody has asked."""
        if trouble and (always or trouble != self._trouble):
            _log.error("%s", trouble)
        self._trouble = trouble
