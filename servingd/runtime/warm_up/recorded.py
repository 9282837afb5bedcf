"""Warm-up: run the requests that were recorded for a version before it is published.

After the requests of its file, it runs those that this server has kept (see `self_warm_up`).
`inference/replay.py` runs one of them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from servingd.core.callbacks import nothing
from servingd.core.servable import Servable
from servingd.core.types import ServableId, VersionData
from servingd.errors import DataLoss, Internal, InvalidArgument, PermissionDenied
from servingd.runtime.warm_up.self_warm_up import SelfWarmUp
from servingd.wire.records.prediction_logs import WARM_UP_FILE, RecordedRequest, recorded_request
from servingd.wire.records.tf_records import read_records

MAX_RECORDS = 1000

_SHOWN_BYTES = 100
"""The bytes that an error shows of a record that does not parse."""

_log = logging.getLogger(__name__)


class OnWarmedUp(Protocol):
    """Who is told that a version has run the requests of its file."""

    def __call__(self, servable_id: ServableId, path: str, seconds: float, records: int, /) -> None:
        """Take the version's folder, the seconds that it took, and the number of its records."""
        ...


class WarmUp:
    """Replays a version's warm-up file and the kept requests while it loads. Thread-safe."""

    def __init__(
        self,
        replay: Callable[[Servable, RecordedRequest], None],
        warmed_up: OnWarmedUp = nothing,
        *,
        enabled: bool = True,
        iterations: int = 1,
        threads: int = 1,
        kept: SelfWarmUp | None = None,
    ) -> None:
        """`replay` runs one request, and raises a ServingError if it fails."""
        self._replay = replay
        self._warmed_up = warmed_up
        self._enabled = enabled
        self._iterations = iterations
        self._threads = threads
        self._kept = kept or SelfWarmUp(enabled=False)

    def __call__(self, servable_id: ServableId, data: VersionData, servable: Servable) -> None:
        """Run all recorded requests on a version that was just loaded, and report it.

        An exception fails the load: DataLoss (no TFRecord file), InvalidArgument (a record does not
        parse, or there are too many), Internal (no regular file), or the error of a record's run.
        """
        if self._enabled:
            self._replay_file(servable_id, data, servable)
        self._kept(servable_id, servable)

    def _replay_file(self, servable_id: ServableId, data: VersionData, servable: Servable) -> None:
        """Replay a version's warm-up file, if it has one, and report it."""
        path = os.path.join(data.path, WARM_UP_FILE)
        if not os.path.lexists(path):
            _log.info("No warmup data file found at %s", path)
            return
        options = f"iterations: {self._iterations} threads: {self._threads}"
        _log.info(
            "Starting to read warmup data for model at %s with model-warmup-options %s",
            data.path,
            options,
        )
        started = time.monotonic()
        if not os.path.isfile(path):  # opening a FIFO would block until something writes to it
            raise Internal(f"{path} is not a regular file")
        count = self._run(path, servable)
        seconds = time.monotonic() - started
        _log.info(
            "Finished reading warmup data for model at %s. Number of warmup records read: %d. "
            "Elapsed time (microseconds): %d.",
            data.path,
            count,
            seconds * 1e6,
        )
        self._warmed_up(servable_id, data.path, seconds, count)

    def again(self, servable_id: ServableId, data: VersionData, servable: Servable) -> None:
        """Run all recorded requests on a new servable of a version that is already serving."""
        path = os.path.join(data.path, WARM_UP_FILE)
        if self._enabled and os.path.isfile(path):  # the files may have been deleted
            _log.debug("%s is warmed up again", servable_id)
            self._run(path, servable)
        self._kept.again(servable_id, servable)

    def _run(self, path: str, servable: Servable) -> int:
        """Run the file's records; return how many there are."""
        if self._threads <= 1:
            return self._read(path, lambda request: self._repeat(request, servable))
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="warm-up")
        try:
            pending: list[Future[None]] = []
            count = self._read(
                path, lambda request: pending.append(pool.submit(self._repeat, request, servable))
            )
            for each in pending:
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)
        return count

    def _read(self, path: str, take: Callable[[RecordedRequest], None]) -> int:
        """Read the file's records, pass each request to `take`, and return their number."""
        count = 0
        for record in _records(path):
            request = _parsed(record, path)
            if request is not None:
                take(request)
            count += 1
            if count > MAX_RECORDS:
                raise InvalidArgument(
                    f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
                )
        return count

    def _repeat(self, request: RecordedRequest, servable: Servable) -> None:
        for _ in range(self._iterations):
            self._replay(servable, request)


def _records(path: str) -> Iterator[bytes]:
    """Yield the file's records. Raises ServingErrors with TensorFlow Serving's texts."""
    try:
        yield from read_records(path)
    except DataLoss as error:
        raise DataLoss(
            f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error
    except PermissionError as error:
        raise PermissionDenied(str(error)) from error
    except OSError as error:
        raise Internal(str(error)) from error


def _parsed(record: bytes, path: str) -> RecordedRequest | None:
    try:
        return recorded_request(record)
    except InvalidArgument as error:
        shown = record[:_SHOWN_BYTES].decode(errors="backslashreplace")
        raise InvalidArgument(f"Failed to parse warmup record: {shown} from {path}") from error
