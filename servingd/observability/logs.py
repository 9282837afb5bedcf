"""The log: one line per event on stderr, for people (`text`) or for programs (`json`)."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from servingd.core.types import ServableId

TEXT, JSON = "text", "json"
LOG_FORMATS = (TEXT, JSON)

_FIELDS = ("model", "version", "method", "code", "request_id")
"""What a line may say besides its message; given by `extra`."""


def configure_logging(form: str = TEXT, level: str = "info", worker: int = 0) -> None:
    """Send the log to stderr; called by the command line, and by a worker once it has a number.

    `form` is one of LOG_FORMATS, `level` is `info`, or `debug` for everything.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(worker) if form == JSON else _TextFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("servingd").setLevel(level.upper())


class _TextFormatter(logging.Formatter):
    """`DATE TIME+ZONE LEVEL THREAD LOGGER] MESSAGE`; a traceback follows in further lines."""

    def __init__(self, worker: int) -> None:
        thread = f"worker-{worker}/%(threadName)s" if worker else "%(threadName)s"
        super().__init__(f"%(asctime)s %(levelname).1s {thread} %(name)s] %(message)s")

    def formatTime(  # noqa: N802 - logging's name
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """Return the local time with its zone."""
        return _time(record).isoformat(" ", "milliseconds")


class _JsonFormatter(logging.Formatter):
    """A JSON object per line; a traceback is a field of it."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": _time(record).isoformat("T", "milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "thread": record.threadName,
            **_fields(record),
        }
        if self._worker:
            line["worker"] = self._worker
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a text that is not Unicode, such as a file's name
            return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what a record says of models and calls: by `extra`, or by a version in its text."""
    found = {name: getattr(record, name) for name in _FIELDS if getattr(record, name, "") != ""}
    arguments = record.args if isinstance(record.args, tuple) else ()
    servable_id = next((each for each in arguments if isinstance(each, ServableId)), None)
    if servable_id is None:
        return found
    return {"model": servable_id.name, "version": servable_id.version, **found}


def _time(record: logging.LogRecord) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(record.created).astimezone()
