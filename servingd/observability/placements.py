"""Metrics of devices and replicas: placements, moved operations, and bytes in use."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from servingd.core.lifecycle.harness import LoadPlan
from servingd.core.resources.placement import ReplicaReport
from servingd.core.types import Device, ServableId

_VERSION = ("model", "version", "device")


class KnownDevice(Protocol):
    """One device that was found."""

    @property
    def device(self) -> Device:
        """Its name."""
        ...

    @property
    def description(self) -> str:
        """Its kind and model, for people to read."""
        ...


class Devices(Protocol):
    """The devices that models can be placed on."""

    @property
    def known(self) -> Sequence[KnownDevice]:
        """The devices that were found; never blocks."""
        ...

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on each device with its own memory, where they are known."""
        ...


class Placements:
    """The replicas that SavedModels report. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replicas: dict[ServableId, Sequence[ReplicaReport]] = {}  # guarded by _lock
        self.plan: Callable[[], LoadPlan] = LoadPlan
        """Returns what each version holds."""
        self._devices: Devices | None = None

    def watch(self, plan: Callable[[], LoadPlan], devices: Devices) -> None:
        """Set the sources of plans and devices; once, before the start."""
        self.plan, self._devices = plan, devices

    def known(self) -> Mapping[Device, str]:
        """Return the description of each device; empty until they are known."""
        return {d.device: d.description for d in self._devices.known} if self._devices else {}

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on devices with their own memory."""
        return self._devices.in_use() if self._devices else {}

    def report(self, servable_id: ServableId, replicas: Sequence[ReplicaReport]) -> None:
        """Record a version's replicas; none: it is unloaded."""
        with self._lock:
            self._replicas.pop(servable_id, None)
            if replicas:
                self._replicas[servable_id] = tuple(replicas)

    def all(self) -> Mapping[ServableId, Sequence[ReplicaReport]]:
        """Return the replicas by version, in order."""
        with self._lock:
            return dict(sorted(self._replicas.items()))

    def collect(self) -> Iterable[Metric]:
        """Return bytes by device, replicas by state, and operations that run elsewhere."""
        return _device_bytes(self.plan(), self.in_use()), *_replica_families(self.all())


def _device_bytes(plan: LoadPlan, in_use: Mapping[Device, int]) -> Metric:
    family = GaugeMetricFamily(
        "servingd_device_bytes",
        "Memory of the host (RAM) and of devices, by kind: limit and held (planned or measured for "
        "models), and in_use where a device tells it.",
        labels=("device", "kind"),
    )
    held = [version.holds for version in plan.versions]
    family.add_metric(("RAM", "limit"), plan.limits.ram)
    family.add_metric(("RAM", "held"), sum(each.ram for each in held))
    for device in sorted({*plan.limits.devices, *in_use}):
        family.add_metric((device.name, "limit"), plan.limits.on(device))
        family.add_metric((device.name, "held"), sum(each.on(device) for each in held))
        if device in in_use:
            family.add_metric((device.name, "in_use"), in_use[device])
    return family


def _replica_families(found: Mapping[ServableId, Sequence[ReplicaReport]]) -> tuple[Metric, Metric]:
    replicas = GaugeMetricFamily(
        "servingd_replicas",
        "Replicas of a version on a device: serving, failing (the last one, which serves on) or "
        "out of service.",
        labels=(*_VERSION, "state"),
    )
    moved = GaugeMetricFamily(
        "servingd_moved_operations",
        "Operations that run elsewhere than on the device of their replica, by type.",
        labels=(*_VERSION, "runs_on", "operation"),
    )
    for servable_id, reports in found.items():
        version = (servable_id.name, str(servable_id.version))
        states = Counter((report.device.name, report.state) for report in reports)
        for (device, state), count in sorted(states.items()):
            replicas.add_metric((*version, device, state), count)
        for key, count in sorted(_moved(reports).items()):
            moved.add_metric((*version, *key), count)
    return replicas, moved


def _moved(reports: Sequence[ReplicaReport]) -> Counter[tuple[str, str, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for report in reports:
        for runs_on, kinds in report.observed.moved.items() if report.observed else ():
            for kind, count in kinds.items():
                counts[report.device.name, runs_on, kind] += count
    return counts
