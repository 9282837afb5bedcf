"""What many models cost the manager, the pages and the polling: in proportion, and little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from servingd.config.models import ModelConfig
from servingd.core.lifecycle.events import Estimated, LoadSucceeded
from servingd.core.lifecycle.harness import LoadPlan
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.resources.placement import ReplicaReport
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import CPU_0, AspiredVersion, AspiredVersions, ServableId, VersionData
from servingd.errors import Code
from servingd.frontends.admin.device_page import describe_devices
from servingd.observability.metrics import Metrics
from servingd.observability.placements import Placements
from servingd.sources.catalogs import ConfiguredCatalog
from servingd.sources.file_system import FileSystemSource, SourceOptions
from tests.bench.measure import Row
from tests.threads.fakes import FakePlatform, FakePlatforms, InlineThreads

FEW, MANY, MOST = 250, 1000, 4000
MANAGER_S = 1.5
"""CPU seconds of the manager's thread for 1,000 models to come up."""
MOST_S = 6.0
PAGE_S = 0.1
POLL_S = 0.01
"""Of the second between two polls."""


def run(folder: Path) -> Iterator[Row]:
    """CPU seconds over what they may be, and how they grow."""
    few, _ = manager_s(FEW)
    many, plan = manager_s(MANY)
    print(f"manager: {FEW} models {few:.2f} s, {MANY} models {many:.2f} s")
    yield Row(f"manager's CPU for {MANY} models, over {MANAGER_S} s", many / MANAGER_S, at_most=1.0)
    most, _ = manager_s(MOST)
    yield Row(f"manager's CPU for {MOST} models, over {MOST_S} s", most / MOST_S, at_most=1.0)
    growth = many / few / (MANY / FEW)
    yield Row("the manager's CPU per model, 1,000 over 250", growth, at_most=1.5)
    pages = pages_s(plan)
    print(f"pages of {MANY} models: {pages * 1e3:.0f} ms")
    yield Row(f"pages of {MANY} models, over {PAGE_S} s", pages / PAGE_S, at_most=1.0)
    poll = poll_s(folder)
    print(f"one poll of {MANY} models: {poll * 1e3:.0f} ms")
    yield Row(f"one poll of {MANY} models, over {POLL_S} s", poll / POLL_S, at_most=1.0)


def manager_s(count: int) -> tuple[float, LoadPlan]:
    """Bring models up: three events each, and a plan whenever no event waits."""
    state, plan = ManagerState(tracker=ResourceTracker(1 << 40)), LoadPlan()
    estimate = Estimate(steady=Footprint(1 << 20, 1 << 20), on_devices=True)
    ids = [ServableId(f"m{i}", 1) for i in range(count)]
    wanted = (AspiredVersion(1, VersionData("/m", "t", "f")),)
    started = time.process_time()
    for make in (
        lambda i: AspiredVersions(i.name, wanted),
        lambda i: Estimated(i, estimate, {CPU_0: 0}),
        LoadSucceeded,
    ):
        for servable_id in ids:
            state.handle(make(servable_id))
        plan = state.plan()
    return time.process_time() - started, plan


def pages_s(plan: LoadPlan) -> float:
    """The slowest of the pages that show all models."""
    placements, metrics = Placements(), Metrics()
    placements.plan = lambda: plan
    for version in plan.versions:
        placements.report(version.id, [ReplicaReport(CPU_0, "serving", "plain", 1)])
        for code in (Code.OK, Code.INVALID_ARGUMENT):
            metrics.requests.record(version.id.name, 1, "serving_default", "Predict", code, 0.001)
    return max(cpu_s(lambda: describe_devices(placements)), cpu_s(metrics.page))


def poll_s(folder: Path) -> float:
    """One look at folders in which nothing has changed."""
    configs = []
    for i in range(MANY):
        version = folder / f"m{i}" / "1"
        (version / "variables").mkdir(parents=True)
        (version / "assets").mkdir()
        for name in ("model", "done", "variables/variables.index", "fingerprint.pb"):
            (version / name).touch()
        configs.append(ModelConfig(name=f"m{i}", base_path=str(folder / f"m{i}"), platform=""))
    platforms = FakePlatforms(FakePlatform())
    source = FileSystemSource(
        ConfiguredCatalog(tuple(configs)),
        platforms,
        _Nobody(),
        SourceOptions(threads=InlineThreads()),
    )
    source.scan()
    return cpu_s(source.scan)


class _Nobody:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *news: None


def cpu_s(call: Callable[[], object]) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best
