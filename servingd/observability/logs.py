"""The log: one line per event, on stderr."""

from __future__ import annotations

import logging
import sys

_THREAD = "%(threadName)s"
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname).1s %(threadName)s %(name)s] %(message)s"


def configure_logging(level: int = logging.INFO, worker: int = 0) -> None:
    """Send the log to stderr; called by the command line, and by a worker once it has a number."""
    handler = logging.StreamHandler(sys.stderr)
    form = _FORMAT.replace(_THREAD, f"worker-{worker}/{_THREAD}") if worker else _FORMAT
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("servingd").setLevel(level)


def set_level(name: str) -> None:
    """Set servingd's log level: `info`, or `debug` for everything."""
    logging.getLogger("servingd").setLevel(name.upper())
