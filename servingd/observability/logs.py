"""The log: one line per event, on stderr."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname).1s %(threadName)s %(name)s] %(message)s"


def configure_logging(level: int = logging.INFO) -> None:
    """Send our log to stderr; called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("servingd").setLevel(level)


def set_level(name: str) -> None:
    """What of our log is told from now on: `info`, or `debug` for all of it."""
    logging.getLogger("servingd").setLevel(name.upper())
