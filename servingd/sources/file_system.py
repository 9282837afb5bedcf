"""The file-system source: watches model directories and states which versions ought to be loaded.

Events of the file system make it look at once; polling is the safety net, and the only means where
there are no events, as on network mounts. Each model is looked at by itself, on a thread that may
hang in a file system: a directory that is missing, cannot be read or does not answer concerns that
model alone, and what it serves stays.
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
from servingd.core.serving import Aspire
from servingd.core.types import AspiredVersions
from servingd.sources.catalogs import ModelCatalog
from servingd.sources.model_directory import ModelDirectory, PlatformNamed, Recognise
from servingd.sources.scans import Look, Patience, next_check, to_give_up, to_tell
from servingd.sources.watcher import Watcher

Configure = Callable[[Mapping[str, ModelConfig]], None]
"""Told of all models that ought to be served, before anything is stated about a new one."""

Absent = Callable[[str, str], None]
"""Told, at each look, of a model of which no version can be loaded, or whose folder does not
answer, and why; and once, with no reason, when its folder answers again."""

_MIN_GAP_S = 0.05
"""At least this long between two looks: a copy under way sends events without end."""

_UNWATCHED_GAP_S = 1.0
"""Looks are so far apart at most where folders cannot be watched for want of an answer."""

_STOP_S = 2.0

_ROSTER, _WATCH = ("the list of models", ""), ("what is watched", "")
"""What is looked at besides the models' directories."""

_log = logging.getLogger(__name__)


class Threads(Protocol):
    """Threads for looks: those of `runtime.threads.WorkerPool`."""

    def start(self) -> None:
        """Start them."""
        ...

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        ...

    def give_up(self, job: Callable[[], None]) -> bool:
        """Replace the thread that runs this job; False if none does."""
        ...

    def stop(self, timeout_s: float) -> list[str]:
        """End them; the names of those that do not."""
        ...


class AtOnce:
    """No threads: who submits a job runs it."""

    def start(self) -> None:
        """Nothing."""

    def submit(self, job: Callable[[], None]) -> None:
        """Run it."""
        job()

    def give_up(self, job: Callable[[], None]) -> bool:
        """Nothing runs."""
        return False

    def stop(self, timeout_s: float) -> list[str]:
        """Nothing."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How it is looked."""

    poll_wait_s: float = 1.0
    """Above 0: look at least so often; 0: look once, and when the catalog has changed; below 0:
    look upon events only."""

    threads: Threads = field(default_factory=AtOnce)
    """The source's own: it starts and stops them."""

    patience: Patience = field(default_factory=Patience)
    """What is done about looks that do not end."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    look: Look
    job: Callable[[], None]
    overdue: Callable[[], None]
    """Called once, by the source's thread."""


class FileSystemSource:
    """Owns the thread `file-system-source`, those for looks, and watchdog's."""

    def __init__(
        self,
        catalog: ModelCatalog,
        platform_named: PlatformNamed,
        recognise: Recognise,
        aspire: Aspire,
        configure: Configure,
        absent: Absent = lambda name, reason: None,
        options: SourceOptions | None = None,
    ) -> None:
        self._catalog = catalog
        self._absent = absent
        self._platform_named = platform_named
        self._recognise = recognise
        self._aspire = aspire
        self._configure = configure
        self._options = options or SourceOptions()
        self._threads = self._options.threads
        self._patience = self._options.patience
        self._watcher = Watcher(self.look_soon)  # one look's thread at a time
        self._asked = True  # a look is due; set by any thread
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._ended: deque[Callable[[], None]] = deque()  # filled by looks' threads
        # All below: the source's thread only.
        self._directories: dict[str, ModelDirectory] = {}
        self._last: dict[str, AspiredVersions] = {}
        self._answered: set[str] = set()  # base paths
        self._told = False  # whether `configure` has been called
        self._trouble = ""  # with the catalog
        self._looks: dict[tuple[str, str], _UnderWay] = {}
        self._thread = threading.Thread(target=self._run, name="file-system-source", daemon=True)

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._threads.start()
        self._thread.start()

    def stop(self) -> None:
        """End; afterwards nothing is stated and no statement is on its way."""
        self._stopping.set()
        self._bell.set()
        self._thread.join(10)
        self._threads.stop(_STOP_S)
        self._watcher.stop()

    def look_soon(self) -> None:
        """Look now, also where polling is off: the catalog has changed. From any thread."""
        self._asked = True
        self._bell.set()

    def scan(self) -> None:
        """Look at every model once. On the source's thread, or before `start` in a test."""
        if _ROSTER in self._looks:
            self._look_at_all()  # the list that is known has to do
        else:
            self._begin(_ROSTER, self._list_models, self._roster_is_silent)
        self._take_results()

    # The source's thread --------------------------------------------------------------------------

    def _run(self) -> None:
        looked = 0.0
        while True:
            self._bell.clear()
            if self._stopping.is_set():  # after `clear`: who stops it rings
                return
            try:
                if self._is_due(looked):
                    self._asked = False
                    looked = time.monotonic()
                    if self._options.poll_wait_s != 0:
                        self._begin_to_watch()
                    self.scan()
                self._take_results()
                self._mind_the_time()
            except BaseException:  # whatever one model's name or folder does: look on
                _log.exception("the models cannot be looked at")
            self._bell.wait(self._rest_s(looked))

    def _is_due(self, looked: float) -> bool:
        return time.monotonic() >= self._due(looked)

    def _due(self, looked: float) -> float:
        """When to look next; infinity: when something happens."""
        if self._asked:
            return looked + _MIN_GAP_S
        if self._options.poll_wait_s > 0:
            return looked + max(_MIN_GAP_S, self._options.poll_wait_s)
        silent = any(u.look.told for u in self._looks.values())
        return (
            looked + _UNWATCHED_GAP_S if self._options.poll_wait_s < 0 and silent else float("inf")
        )

    def _rest_s(self, looked: float) -> float | None:
        now = time.monotonic()
        looks = [under_way.look for under_way in self._looks.values()]
        due = min(self._due(looked), next_check(looks, now, self._patience))
        return None if due == float("inf") else max(0.0, due - now)

    def _begin(
        self,
        key: tuple[str, str],
        find: Callable[[], Callable[[], None]],
        overdue: Callable[[], None],
    ) -> None:
        """Let a thread find something out, unless one still does; what it returns is done here."""
        if key in self._looks:
            return
        look = Look()

        def job() -> None:
            look.begun = time.monotonic()
            outcome: Callable[[], None] | None = None
            try:
                outcome = find()
            except BaseException:  # one model's directory must not end the watch of the others
                _log.exception("%s cannot be looked at", " ".join(key))
            self._ended.append(lambda: self._end(key, outcome))
            self._bell.set()

        self._looks[key] = _UnderWay(look, job, overdue)
        self._threads.submit(job)

    def _end(self, key: tuple[str, str], outcome: Callable[[], None] | None) -> None:
        if self._looks.pop(key).look.told:
            _log.info("%s answers again", " ".join(key))
        if outcome is not None:
            outcome()

    def _take_results(self) -> None:
        while self._ended and not self._stopping.is_set():
            self._ended.popleft()()

    def _mind_the_time(self) -> None:
        now = time.monotonic()
        looks = {u.look: u for u in self._looks.values()}
        for look in to_give_up(looks.keys(), now, self._patience):
            look.given_up = self._threads.give_up(looks[look].job)
        for look in to_tell(looks.keys(), now, self._patience):
            look.told = True
            looks[look].overdue()

    # What is looked at ----------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        for name, directory in self._directories.items():
            self._look_at(name, directory)

    def _look_at(self, name: str, directory: ModelDirectory) -> None:
        path = directory.model.base_path

        def find() -> Callable[[], None]:
            statement = directory.scan()
            return lambda: self._found(directory, statement)

        def silent() -> None:
            if self._directories.get(name) is directory:
                reason = (
                    f"base path {path} of servable {name} does not answer: a look at it has been "
                    f"under way for {self._patience.told_s:g} s"
                )
                _log.warning("%s", reason)
                directory.silent = True
                self._absent(name, reason)

        self._begin((f"the directory of model {name}:", path), find, silent)

    def _found(self, directory: ModelDirectory, statement: AspiredVersions | None) -> None:
        name = directory.model.name
        if self._directories.get(name) is not directory:
            self._asked = True  # its model is another by now, and has waited for this look
            return
        if directory.absent or directory.silent:
            self._absent(name, directory.absent)
        directory.silent = False
        if statement is None:
            return
        if directory.model.base_path not in self._answered:
            self._answered.add(directory.model.base_path)
            self._asked = self._asked or self._options.poll_wait_s != 0  # it can be watched now
        if statement != self._last.get(name):
            self._last[name] = statement
            self._state(statement)

    def _begin_to_watch(self) -> None:
        """Watch what answers; what happens before it is watched is looked for once more."""
        repository = self._catalog.watched()
        silent = any(under_way.look.told for under_way in self._looks.values())
        if repository is not None and silent:
            return  # the walk through it would hang too
        paths = {directory.model.base_path for directory in self._directories.values()}
        folders = paths & self._answered if repository is None else {repository}

        def watch() -> Callable[[], None]:
            more = self._watcher.watch(folders)
            return self.look_soon if more else lambda: None

        self._begin(_WATCH, watch, self._watching_is_silent)

    def _watching_is_silent(self) -> None:
        _log.warning("folders are polled: one that is to be watched does not answer")

    def _state(self, statement: AspiredVersions) -> None:
        if not self._stopping.is_set():
            self._aspire(statement)

    def _list_models(self) -> Callable[[], None]:
        try:
            models = {model.name: model for model in self._catalog.models()}
        except Exception as error:  # the last answer stands
            trouble = f"the models cannot be listed: {error}"
            return lambda: self._keep_models(trouble)
        return lambda: self._update_models(models)

    def _roster_is_silent(self) -> None:
        self._keep_models("the models cannot be listed: their folder does not answer")

    def _keep_models(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble
        self._look_at_all()

    def _update_models(self, models: dict[str, ModelConfig]) -> None:
        self._trouble = ""
        if not self._told or {n: d.model for n, d in self._directories.items()} != models:
            self._told = True
            self._configure(models)
            self._replace_directories(models)
        self._look_at_all()

    def _replace_directories(self, models: dict[str, ModelConfig]) -> None:
        for name in self._directories.keys() - models.keys():
            del self._directories[name]
            self._last.pop(name, None)
            self._state(AspiredVersions(name, ()))  # once: everything of it is to be unloaded
        for name, model in models.items():
            known = self._directories.get(name)
            if known is None or known.model != model:
                self._directories[name] = ModelDirectory(
                    model, self._platform_named, self._recognise
                )
        self._answered &= {model.base_path for model in models.values()}
