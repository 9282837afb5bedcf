"""The configuration file, read and applied again at an interval."""

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
    """Owns the thread `config-file`. What has been reloaded by a call meanwhile is overruled."""

    def __init__(
        self, read: Callable[[], tuple[ModelConfig, ...]], apply: Apply, wait_s: float
    ) -> None:
        self._read = read
        self._apply = apply
        self._wait_s = wait_s
        self._stopping = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="config-file", daemon=True)

    def start(self) -> None:
        """Begin to wait for the first reading."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stopping.wait(self._wait_s):
            self._complain(self._read_and_apply())

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

    def _complain(self, trouble: str) -> None:
        """Log a trouble once, when it begins."""
        if trouble and trouble != self._trouble:
            _log.error("%s", trouble)
        self._trouble = trouble
