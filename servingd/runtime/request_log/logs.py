"""The request log: a sample of the calls that succeed, in files that can warm up later versions.

A call never waits for it: a record goes into a queue of limited size, and is dropped and
counted if that is full. One thread writes.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from servingd.config.models import ModelConfig
from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.runtime.request_log.files import LogFiles
from servingd.runtime.threads import join
from servingd.wire.records.prediction_logs import Provenance, prediction_log
from servingd.wire.records.tf_records import frame

MAX_WAITING = 1000
MAX_WAITING_BYTES = 64 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Target:
    """The file prefix and sampling rate of one model."""

    prefix: str
    rate: float
    attributes: int


class _Entry(NamedTuple):
    """A record that waits to be written."""

    servable: ServableId
    kind: str
    request: bytes
    response: bytes
    target: _Target
    timestamp_s: int

    @property
    def size(self) -> int:
        return len(self.request) + len(self.response)


class CountLogged(Protocol):
    """Who counts the sampled calls."""

    def __call__(self, model: str, outcome: Code, /) -> None:
        """Count one call: OK once it is in a file, else why it is not."""
        ...


class RequestLogs:
    """Logs of all models; see `frontends.call.RequestLog`. `start` and `stop` once each."""

    def __init__(
        self,
        max_bytes: int,
        max_files: int,
        counted: CountLogged,
        tags: tuple[str, ...] = (),
        suffix: str = "",
    ) -> None:
        """`max_bytes` per file, `max_files` per prefix (0: no limit), `tags` of the models.

        `suffix` is appended to each prefix: files of several processes must differ.
        """
        self._suffix = suffix
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._counted = counted
        self._tags = tags
        self._targets: Mapping[str, _Target] = {}  # replaced whole; readers take the reference
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()  # guarded by _changed
        self._waiting_bytes = 0  # guarded by _changed
        self._deadline: float | None = None  # guarded by _changed; set by stop
        self._seen: Mapping[str, _Target] = self._targets  # the writer's thread alone
        self._files: dict[str, LogFiles] = {}  # the writer's thread alone
        self._broken: set[str] = set()  # the writer's thread alone
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)

    def configure(self, models: Iterable[ModelConfig]) -> None:
        """Log these models from now on, by their settings, and no others. Thread-safe."""
        targets = {}
        for model in models:
            logged = model.logging
            if logged is not None and logged.filename_prefix and logged.rate() > 0:
                targets[model.name] = _Target(
                    logged.filename_prefix + self._suffix, logged.rate(), logged.attributes
                )
        self._targets = targets
        with self._changed:
            self._changed.notify()

    def samples(self, model: str) -> bool:
        """Return whether a call that has just succeeded is to be logged. Thread-safe."""
        target = self._targets.get(model)
        return target is not None and random.random() < target.rate

    def write(self, servable_id: ServableId, kind: str, request: bytes, response: bytes) -> None:
        """Enqueue a record; `kind` is its field in PredictionLog. Never blocks. Thread-safe."""
        target = self._targets.get(servable_id.name)
        if target is None:  # it is not logged any more
            return
        entry = _Entry(servable_id, kind, request, response, target, int(time.time()))
        refused = None
        with self._changed:
            if self._deadline is not None:
                refused = Code.UNAVAILABLE
            elif (
                len(self._waiting) >= MAX_WAITING
                or self._waiting_bytes + entry.size > MAX_WAITING_BYTES
            ):
                refused = Code.RESOURCE_EXHAUSTED
            else:
                self._waiting.append(entry)
                self._waiting_bytes += entry.size
                self._changed.notify()
        if refused is not None:
            self._counted(servable_id.name, refused)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Write the queued records for at most `timeout_s` seconds, and end the thread."""
        with self._changed:
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify()
        join([self._thread], timeout_s + 1.0)

    # The writer's thread --------------------------------------------------------------------------

    def _run(self) -> None:
        """Write records until the stop; the thread's main loop."""
        while (entry := self._next()) is not None:
            self._write(entry)
            del entry  # else its bytes live until the next one comes
        self._abandon()
        for files in self._files.values():
            files.close()

    def _next(self) -> _Entry | None:
        """Wait for the next entry and return it; None when it is time to end."""
        while True:
            self._close_unused()
            with self._changed:
                while not self._waiting and self._deadline is None and self._is_current():
                    self._changed.wait()
                late = self._deadline is not None and time.monotonic() >= self._deadline
                if self._waiting and not late:
                    entry = self._waiting.popleft()
                    self._waiting_bytes -= entry.size
                    return entry
                if self._deadline is not None:
                    return None

    def _abandon(self) -> None:
        """Count and drop the records that could not be written in time."""
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
        if left:
            _log.warning(
                "%d requests are not logged: the server stops, and writing took too long", len(left)
            )
        for entry in left:
            self._counted(entry.servable.name, Code.UNAVAILABLE)

    def _is_current(self) -> bool:
        return self._targets is self._seen

    def _close_unused(self) -> None:
        """Close the files of prefixes that are not configured any more."""
        if self._is_current():
            return
        self._seen = self._targets
        used = {target.prefix for target in self._seen.values()}
        for prefix in self._files.keys() - used:
            self._files.pop(prefix).close()

    def _write(self, entry: _Entry) -> None:
        """Write a record and count it; the first failure of a prefix is logged."""
        prefix = entry.target.prefix
        try:
            record = frame(self._record(entry))
            files = self._files.get(prefix)
            if files is None:
                files = self._files[prefix] = LogFiles(prefix, self._max_bytes, self._max_files)
            files.write(record)
        except BaseException as error:  # one record must not end the log
            if prefix not in self._broken:
                self._broken.add(prefix)
                _log.error("requests are not logged to %s: %s", prefix, error)
            self._counted(entry.servable.name, _code_of(error))
            return
        if prefix in self._broken:
            self._broken.remove(prefix)
            _log.info("requests are logged to %s again", prefix)
        self._counted(entry.servable.name, Code.OK)

    def _record(self, entry: _Entry) -> bytes:
        origin = Provenance(
            entry.timestamp_s, self._tags, entry.target.rate, entry.target.attributes
        )
        return prediction_log(entry.servable, entry.kind, entry.request, entry.response, origin)


def _code_of(error: BaseException) -> Code:
    """Return the code under which a failed record is counted."""
    if isinstance(error, PermissionError):
        return Code.PERMISSION_DENIED
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Code.NOT_FOUND
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno in full:
        return Code.RESOURCE_EXHAUSTED
    return Code.INTERNAL
