"""The log: one line per event, on stderr."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname).1s %(threadName)s %(name)s] %(message)s"


def configure_logging(level: int = logging.INFO) -> None:
    """Send the log to stderr; called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("servingd").setLevel(level)


def set_level(name: str) -> None:
    """Set servingd's log level: `info`, or `debug` for everything."""
    logging.getLogger("servingd").setLevel(name.upper())
