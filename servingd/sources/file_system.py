"""The file-system source: watches model directories and aspires the versions that it finds.

It is TensorFlow Serving's FileSystemStoragePathSource. Events of the file system make it scan at
once; polling is the safety net, and the only means where there are no events, as on network mounts.
Each model is scanned by itself, on a thread that may hang in a file system: a directory that is
missing, cannot be read or does not answer concerns that model alone, and its versions keep serving.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from servingd.config.models import ModelConfig
from servingd.core.types import AspiredVersions, ServableId
from servingd.sources.catalogs import ModelCatalog
from servingd.sources.listener import SourceListener
from servingd.sources.model_directory import ModelDirectory, PlatformTable
from servingd.sources.polling import ChangeCollector, models_to_scan
from servingd.sources.scans import Scan, ScanLimits, next_check, to_abandon, to_report
from servingd.sources.watcher import Watcher

_MIN_INTERVAL_S = 0.05
"""Seconds between two scans, at least: a copy under way sends events without end."""

_UNWATCHED_INTERVAL_S = 1.0
"""Seconds between two scans, at most, while a folder that does not answer cannot be watched."""

_MANY_SCANS, _TOGETHER_S = 16, 0.01
"""While so many scans are under way, results are taken at such intervals in seconds, together."""

_STOP_S = 2.0
"""Seconds that the scans' threads get to end before they are left behind."""

_MODEL_LIST, _WATCHES = ("the list of models", ""), ("what is watched", "")
"""What is scanned besides the models' directories; see `FileSystemSource._begin`."""

_log = logging.getLogger(__name__)


class Threads(Protocol):
    """The threads of scans; see `runtime.threads.WorkerPool`."""

    def start(self) -> None:
        """Start the threads."""
        ...

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        ...

    def give_up(self, job: Callable[[], None]) -> bool:
        """Replace the thread that runs a job; return False if none does."""
        ...

    def stop(self, timeout_s: float) -> list[str]:
        """End the threads; return the names of those that do not end in time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """When and how a source scans."""

    threads: Threads
    """The scans' threads: the source starts and stops them."""

    poll_wait_s: float = 1.0
    """`--file_system_poll_wait_seconds`. Above 0: scan at least so often; 0: scan once, and when
    the catalog has changed; below 0: scan upon events only."""

    limits: ScanLimits = field(default_factory=ScanLimits)
    """What is done about scans that do not end."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A scan that was submitted."""

    scan: Scan
    job: Callable[[], None]
    on_unresponsive: Callable[[], None]
    """Called once, by the source's thread."""


class FileSystemSource:
    """Owns the thread `file-system-source`, the scans' threads, and watchdog's."""

    def __init__(
        self,
        catalog: ModelCatalog,
        platforms: PlatformTable,
        listener: SourceListener,
        options: SourceOptions,
    ) -> None:
        """Scan nothing yet. `catalog` says which models there are."""
        self._catalog = catalog
        self._platforms = platforms
        self._listener = listener
        self._options = options
        self._threads = options.threads
        self._limits = options.limits
        self._watcher = Watcher(self._on_changed)  # used by one scan's thread at a time
        self._requested = True  # a scan is due; set by any thread
        self._changes = ChangeCollector()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._results: deque[Callable[[], None]] = deque()  # filled by the scans' threads
        # All below: the source's thread only.
        self._directories: dict[str, ModelDirectory] = {}  # by model; last scanned, last
        self._due: set[str] = set()  # models whose directory is to be scanned at the next scan
        self._last: dict[str, AspiredVersions] = {}  # by model
        self._quarantined: dict[str, Mapping[int, str]] = {}  # by model; see ModelDirectory
        self._responsive: set[str] = set()  # base paths that answered a scan
        self._models_known = False  # whether `models_configured` has been called
        self._catalog_problem = ""
        self._scans: dict[tuple[str, str], _UnderWay] = {}
        self._thread = threading.Thread(target=self._run, name="file-system-source", daemon=True)

    def start(self) -> None:
        """Begin to scan; returns at once."""
        self._threads.start()
        self._thread.start()

    def stop(self) -> None:
        """End; afterwards no method of the listener is called, and none is under way."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(10)
        self._threads.stop(_STOP_S)
        self._watcher.stop()

    def request_scan(self) -> None:
        """Scan soon, also where polling is off: the catalog has changed. From any thread.

        Without polling a reload scans every model, as in TensorFlow Serving; with it, the models
        that the reload has changed, and those whose turn it is.
        """
        if self._options.poll_wait_s <= 0:
            self._changes.add_every_model()
        self._requested = True
        self._wake.set()

    def _on_changed(self, path: str) -> None:
        """Scan the model soon that a file belongs to. From watchdog's threads."""
        self._changes.add_path(path)
        self._requested = True
        self._wake.set()

    def scan(self) -> None:
        """Begin a scan: of the models that changed, and of some whose last scan is longest ago.

        On the source's thread, or before `start` in a test.
        """
        if _MODEL_LIST in self._scans:
            self._scan_due()  # the list that is known has to do
        else:
            self._begin(_MODEL_LIST, self._list_models, self._on_list_unresponsive)
        self._take_results()

    # The source's thread --------------------------------------------------------------------------

    def _run(self) -> None:
        scanned_at = 0.0
        while True:
            self._wake.clear()
            if self._stopping.is_set():  # after `clear`: `stop` sets this first, then wakes us
                return
            try:
                if time.monotonic() >= self._next_scan(scanned_at):
                    self._requested = False
                    scanned_at = time.monotonic()
                    if self._options.poll_wait_s != 0:
                        self._begin_to_watch()
                    self.scan()
                self._take_results()
                self._check_limits()
            except BaseException:  # whatever one model's name or folder causes: go on
                _log.exception("the models cannot be looked at")
            self._wake.wait(self._wait_s(scanned_at))
            if len(self._scans) >= _MANY_SCANS:
                self._stopping.wait(_TOGETHER_S)

    def _next_scan(self, scanned_at: float) -> float:
        """Return when to scan next, in monotonic seconds; infinity: when something happens."""
        if self._requested:
            return scanned_at + _MIN_INTERVAL_S
        wait_s = self._options.poll_wait_s
        if wait_s > 0:
            return scanned_at + max(_MIN_INTERVAL_S, wait_s)
        unresponsive = any(under_way.scan.reported for under_way in self._scans.values())
        if wait_s < 0 and unresponsive:
            return scanned_at + _UNWATCHED_INTERVAL_S
        return float("inf")

    def _wait_s(self, scanned_at: float) -> float | None:
        """Return how long there is nothing to do unless something happens; None: for ever."""
        now = time.monotonic()
        scans = [under_way.scan for under_way in self._scans.values()]
        due = min(self._next_scan(scanned_at), next_check(scans, now, self._limits))
        return None if due == float("inf") else max(0.0, due - now)

    def _begin(
        self,
        key: tuple[str, str],
        find: Callable[[], Callable[[], None]],
        on_unresponsive: Callable[[], None],
    ) -> bool:
        """Run `find` on a scan's thread; return False if a scan of `key` is under way already.

        What it returns is then called on the source's thread. `key` is what is scanned, in words
        for the log, and its path.
        """
        if key in self._scans:
            return False
        scan = Scan()

        def job() -> None:
            scan.begun = time.monotonic()
            result: Callable[[], None] | None = None
            try:
                result = find()
            except BaseException:  # one model's directory must not end the watch of the others
                _log.exception("%s cannot be looked at", " ".join(key))
            self._results.append(lambda: self._end(key, result))
            self._wake.set()

        self._scans[key] = _UnderWay(scan, job, on_unresponsive)
        self._threads.submit(job)
        return True

    def _end(self, key: tuple[str, str], result: Callable[[], None] | None) -> None:
        if self._scans.pop(key).scan.reported:
            _log.info("%s answers again", " ".join(key))
        if result is not None:
            result()

    def _take_results(self) -> None:
        while self._results and not self._stopping.is_set():
            self._results.popleft()()

    def _check_limits(self) -> None:
        """Replace the threads of slow scans, and report those that do not answer."""
        now = time.monotonic()
        scans = {under_way.scan: under_way for under_way in self._scans.values()}
        for scan in to_abandon(scans.keys(), now, self._limits):
            scan.abandoned = self._threads.give_up(scans[scan].job)
        for scan in to_report(scans.keys(), now, self._limits):
            scan.reported = True
            scans[scan].on_unresponsive()

    # Quarantine ---------------------------------------------------------------------------------

    def quarantine(self, servable_id: ServableId, fingerprint: str) -> None:
        """Aspire a version no more until its files are others. Thread-safe."""
        self._results.append(lambda: self._quarantine(servable_id, fingerprint))
        self._wake.set()

    def _quarantine(self, servable_id: ServableId, fingerprint: str) -> None:
        name = servable_id.name
        if name not in self._directories:
            return  # it has been removed, and is judged anew if it comes back
        known = {**self._quarantined.get(name, {}), servable_id.version: fingerprint}
        self._quarantined[name] = known
        self._directories[name].quarantined = known
        self._due.add(name)
        self._requested = True

    # One model's directory ------------------------------------------------------------------------

    def _scan_due(self) -> None:
        models = {name: d.model.base_path for name, d in self._directories.items()}
        for name in models_to_scan(models, self._due, self._changes.take()):
            self._directories[name] = directory = self._directories.pop(name)  # now the last
            if self._scan_model(name, directory):
                self._due.discard(name)
            else:
                self._due.add(name)  # it may have changed since the scan under way looked

    def _scan_model(self, name: str, directory: ModelDirectory) -> bool:
        """Begin a scan; return False if one is under way."""
        path = directory.model.base_path

        def find() -> Callable[[], None]:
            aspired = directory.scan()
            return lambda: self._on_scanned(directory, aspired)

        def on_unresponsive() -> None:
            if self._directories.get(name) is directory:
                reason = (
                    f"base path {path} of servable {name} does not answer: a look at it has been "
                    f"under way for {self._limits.unresponsive_s:g} s"
                )
                _log.warning("%s", reason)
                directory.unresponsive = True
                self._listener.no_version_found(name, reason)

        return self._begin((f"the directory of model {name}:", path), find, on_unresponsive)

    def _on_scanned(self, directory: ModelDirectory, aspired: AspiredVersions | None) -> None:
        name = directory.model.name
        if self._directories.get(name) is not directory:
            self._due.add(name)  # its model is another by now, and has waited for this scan
            self._requested = True
            return
        self._requested = self._requested or name in self._due
        if directory.no_version or directory.unresponsive:
            self._listener.no_version_found(name, directory.no_version)
        directory.unresponsive = False
        if aspired is None:
            return
        if directory.model.base_path not in self._responsive:
            self._responsive.add(directory.model.base_path)
            self._requested = self._requested or self._options.poll_wait_s != 0  # to be watched now
        if aspired != self._last.get(name):
            self._last[name] = aspired
            self._aspire(aspired)

    def _aspire(self, aspired: AspiredVersions) -> None:
        if not self._stopping.is_set():
            self._listener.set_aspired_versions(aspired)

    # What is watched ------------------------------------------------------------------------------

    def _begin_to_watch(self) -> None:
        """Watch the folders that answer, and scan once more if any of them was not watched."""
        repository = self._catalog.watched()
        unresponsive = any(under_way.scan.reported for under_way in self._scans.values())
        if repository is not None and unresponsive:
            return  # watchdog's walk through it would hang too
        paths = {directory.model.base_path for directory in self._directories.values()}
        folders = paths & self._responsive if repository is None else {repository}

        def watch() -> Callable[[], None]:
            more = self._watcher.watch(folders)
            return self.request_scan if more else lambda: None

        self._begin(_WATCHES, watch, self._on_watching_unresponsive)

    def _on_watching_unresponsive(self) -> None:
        _log.warning("folders are polled: one that is to be watched does not answer")

    # The list of models ---------------------------------------------------------------------------

    def _list_models(self) -> Callable[[], None]:
        try:
            models = {model.name: model for model in self._catalog.models()}
        except Exception as error:  # the last answer stands
            problem = f"the models cannot be listed: {error}"
            return lambda: self._keep_models(problem)
        return lambda: self._update_models(models)

    def _on_list_unresponsive(self) -> None:
        self._keep_models("the models cannot be listed: their folder does not answer")

    def _keep_models(self, problem: str) -> None:
        if problem != self._catalog_problem:
            _log.warning("%s", problem)
        self._catalog_problem = problem
        self._scan_due()

    def _update_models(self, models: dict[str, ModelConfig]) -> None:
        self._catalog_problem = ""
        if not self._models_known or {n: d.model for n, d in self._directories.items()} != models:
            self._models_known = True
            self._listener.models_configured(models)
            self._replace_directories(models)
        self._scan_due()

    def _replace_directories(self, models: dict[str, ModelConfig]) -> None:
        for name in self._directories.keys() - models.keys():
            del self._directories[name]
            self._due.discard(name)
            self._last.pop(name, None)
            self._quarantined.pop(name, None)
            self._aspire(AspiredVersions(name, ()))  # all of its versions are to be unloaded
        for name, model in models.items():
            known = self._directories.get(name)
            if known is None or known.model != model:
                directory = self._directories[name] = ModelDirectory(model, self._platforms)
                directory.quarantined = self._quarantined.get(name, {})
                self._due.add(name)
        self._responsive &= {model.base_path for model in models.values()}
