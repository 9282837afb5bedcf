"""Fakes for the runtime: servables and loaders that wait where a test tells them to.

What a test waits for is an event with a deadline; `TIMEOUT` is that deadline.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from servingd.core.call_protocols import Completion
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.resources.footprints import UNKNOWN, Estimate
from servingd.core.servable import RuledBatching
from servingd.core.types import (
    ANYWHERE,
    AspiredVersion,
    AspiredVersions,
    DataType,
    Placement,
    ServableId,
    Signature,
    Tensors,
    TensorSpec,
    VersionData,
)
from servingd.core.version_files import Listing
from servingd.errors import InvalidArgument, ServingError

TIMEOUT = 10.0
"""Seconds after which a test gives up; nothing takes a tenth of it."""

Run = Callable[[Tensors, Completion], None]


def signature(name: str = "serving_default") -> Signature:
    return Signature(
        name,
        {"x": TensorSpec(DataType.FLOAT, (None,), "x:0")},
        {"y": TensorSpec(DataType.FLOAT, (None,), "y:0")},
    )


def inputs(size: int = 1) -> Tensors:
    return {"x": np.ones(size, np.float32)}


def opened() -> threading.Event:
    """An event that holds nobody up until it is cleared."""
    event = threading.Event()
    event.set()
    return event


class RecordingCompletion(Completion):
    """Records its outcome; `lives` says whether anybody still waits for it."""

    def __init__(self, deadline: float | None = None, lives: bool = True) -> None:
        self.deadline = deadline
        self.lives = lives
        self.outcomes: list[Tensors | ServingError] = []
        self.done = threading.Event()

    def alive(self) -> bool:
        return self.lives

    def succeed(self, outputs: Tensors) -> None:
        self.outcomes.append(outputs)
        self.done.set()

    def fail(self, error: ServingError) -> None:
        self.outcomes.append(error)
        self.done.set()

    @property
    def outcome(self) -> Tensors | ServingError:
        """What came; waits for it."""
        assert self.done.wait(TIMEOUT), "no outcome"
        assert len(self.outcomes) == 1, self.outcomes
        return self.outcomes[0]


def echo(inputs: Tensors, done: Completion) -> None:
    done.succeed({"y": inputs["x"]})


class FakeServable:
    """Answers with its input, or does what `body` does, once `may_run` is set."""

    def __init__(self, *signature_names: str, body: Run = echo) -> None:
        names = signature_names or ("serving_default",)
        self.signatures: Mapping[str, Signature] = {name: signature(name) for name in names}
        self.metadata = self.signatures
        self.may_run = opened()
        self.running = threading.Event()
        self.ran_on: list[threading.Thread] = []
        self.closed_on: threading.Thread | None = None
        self.ruled_batching: RuledBatching | None = None
        self.rows_worth = 0
        self.keeps_state = False
        self._body = body

    def rows_worth_merging(self, signature: str) -> int:
        return self.rows_worth

    def why_not_merged(self, signature):
        return ""

    def may_be_repeated(self, signature: str) -> bool:
        return not self.keeps_state

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        assert self.closed_on is None, "a run after close"
        self.ran_on.append(threading.current_thread())
        self.running.set()
        assert self.may_run.wait(TIMEOUT)
        self._body(inputs, done)

    def close(self) -> None:
        assert self.closed_on is None, "closed twice"
        self.closed_on = threading.current_thread()


class FakeLoader:
    """One version's loader: fails with each of `failures` first, then loads."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.attempts = 0
        self.made_on: threading.Thread | None = None
        self.servable = FakeServable()
        self.loading = threading.Event()
        self.may_load = opened()
        self.unloading = threading.Event()
        self.may_unload = opened()
        self.unloaded = threading.Event()
        self.unload_failure: Exception | None = None
        self._busy = threading.Lock()
        self.needs = UNKNOWN
        self.estimated_on: threading.Thread | None = None
        self.placements: list[Placement] = []
        self.grew = threading.Event()
        self.cancelled = threading.Event()

    def estimate(self) -> Estimate:
        self.estimated_on = threading.current_thread()
        return self.needs

    def cancel(self) -> None:
        assert not self.cancelled.is_set(), "cancelled twice"
        self.cancelled.set()

    def grow(self) -> None:
        assert not self.grew.is_set(), "grown twice"
        self.grew.set()

    def load(self, placement: Placement = ANYWHERE) -> FakeServable:
        self.placements.append(placement)
        assert self._busy.acquire(blocking=False), "used from two threads at a time"
        try:
            self.attempts += 1
            self.loading.set()
            assert self.may_load.wait(TIMEOUT)
            if self._failures:
                raise self._failures.pop(0)
            return self.servable
        finally:
            self._busy.release()

    def unload(self, servable: FakeServable) -> None:
        assert servable is self.servable
        assert self._busy.acquire(blocking=False), "used from two threads at a time"
        try:
            self.unloading.set()
            assert self.may_unload.wait(TIMEOUT)
            servable.close()
            if self.unload_failure is not None:
                raise self.unload_failure
        finally:
            self._busy.release()
            self.unloaded.set()

    def let_go(self) -> None:
        """Hold nothing up any more."""
        for event in (self.may_load, self.may_unload, self.servable.may_run):
            event.set()


class FakeLoaders:
    """Where a manager gets loaders from: those that were prepared, in order, else plain ones."""

    def __init__(self) -> None:
        self._prepared: dict[ServableId, list[FakeLoader]] = defaultdict(list)
        self.made: dict[ServableId, list[FakeLoader]] = defaultdict(list)
        self.impossible: dict[ServableId, Exception] = {}

    def prepare(self, name: str, version: int, *failures: Exception) -> FakeLoader:
        return self.prepare_this(ServableId(name, version), FakeLoader(*failures))

    def prepare_this(self, servable: ServableId, loader: FakeLoader) -> FakeLoader:
        self._prepared[servable].append(loader)
        return loader

    def __call__(self, servable: ServableId, data: VersionData) -> FakeLoader:
        if servable in self.impossible:
            raise self.impossible[servable]
        waiting = self._prepared.get(servable)
        loader = waiting.pop(0) if waiting else FakeLoader()
        loader.made_on = threading.current_thread()
        self.made[servable].append(loader)
        return loader

    def __getitem__(self, servable: ServableId) -> FakeLoader:
        """The newest loader of a version."""
        return self.made[servable][-1]

    def let_go(self) -> None:
        for loader in itertools.chain(*self._prepared.values(), *self.made.values()):
            loader.let_go()


class Heard:
    """Remembers announcements, and waits for them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._states: list[ServableState] = []  # guarded by _changed

    def __call__(self, state: ServableState) -> None:
        with self._changed:
            self._states.append(state)
            self._changed.notify_all()

    def of(self, name: str, version: int) -> list[ServableState]:
        with self._changed:
            return self._of(name, version)

    def names_of(self, name: str, version: int) -> list[str]:
        """The states of a version, by name, in order."""
        return [s.state.name for s in self.of(name, version)]

    def wait(self, name: str, version: int, state: str, times: int = 1) -> ServableState:
        """The `times`-th announcement of a state, as soon as it is there."""
        goal = PublicState[state]
        with self._changed:
            found = self._changed.wait_for(
                lambda: len([s for s in self._of(name, version) if s.state is goal]) >= times,
                TIMEOUT,
            )
            assert found, f"{name}:{version} is not {state}: {self._states}"
            return [s for s in self._of(name, version) if s.state is goal][times - 1]

    def _of(self, name: str, version: int) -> list[ServableState]:
        return [s for s in self._states if s.id == ServableId(name, version)]


def aspire(
    name: str, *versions: int, files: str = "", incomplete: Mapping[int, str] | None = None
) -> AspiredVersions:
    return AspiredVersions(
        name,
        tuple(
            AspiredVersion(v, VersionData(f"/models/{name}/{v}", "fake", files)) for v in versions
        ),
        incomplete or {},
    )


class FakePlatform:
    """A servable type whose versions have a file `model` and are complete with a file `done`."""

    def __init__(self, name: str = "fake", marker: str = "model") -> None:
        self.name = name
        self._marker = marker
        self.looks = 0
        self.trouble: Exception | None = None

    def recognises(self, listing: Listing) -> bool:
        return self._marker in listing.sizes or "" in listing.sizes

    def missing(self, listing: Listing) -> str | None:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        if "" in listing.sizes or "done" in listing.sizes:
            return None
        return "done is not there"

    def loader(self, servable: ServableId, data: VersionData) -> FakeLoader:
        return FakeLoader()

    def stop(self) -> None:
        pass


class FakePlatforms:
    """The registry, with fake types in it."""

    def __init__(self, *platforms: FakePlatform) -> None:
        self._by_name = {p.name: p for p in platforms}

    @property
    def names(self) -> list[str]:
        return sorted(self._by_name)

    def __getitem__(self, name: str) -> FakePlatform:
        if name not in self._by_name:
            raise InvalidArgument(f"unsupported platform {name!r}")
        return self._by_name[name]

    def recognise(self, listing: Listing) -> str | None:
        return next((n for n, p in self._by_name.items() if p.recognises(listing)), None)

    def check_options(self, name: str, options: object) -> None:
        pass


class InlineThreads:
    """In the place of a `WorkerPool`: whoever submits a job runs it."""

    def start(self) -> None:
        pass

    def submit(self, job: Callable[[], None]) -> None:
        job()

    def give_up(self, job: Callable[[], None]) -> bool:
        return False

    def stop(self, timeout_s: float) -> list[str]:
        return []
