"""What a version takes: as estimated from its files, as measured by its load, and the correction.

The estimates themselves are the loaders' (`servables/saved_model/files/estimate.py`). The same rule
of thumb errs in the same way for all versions of a model. So the next estimate is the one from the
files, times what the last measured load took over what had been estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from servingd.core.resources.placement import Cost
from servingd.core.types import Resources


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a version: of the host's memory, counted once, and of each replica on its device."""

    shared: int = 0
    replica: int = 0
    on_accelerator: int | None = None
    """Bytes of a replica on a device with its own memory; None: as many as on the host."""


NOTHING = Footprint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a version will take, as its loader reads from its files: upper bounds in bytes."""

    steady: Footprint = NOTHING
    """After it is loaded."""

    peak: Footprint = NOTHING
    """While it is being loaded; if it is less than `steady`, `steady` counts."""

    growth: Footprint = NOTHING
    """In addition, while it is being optimised; nothing: it is not."""

    grown: Footprint = NOTHING
    """In place of `steady`, after it was optimised."""

    least: Footprint = NOTHING
    """A lower bound: a measurement below it is not believed."""

    on_devices: bool = False
    """Whether it runs on devices that are chosen for it; else it is on `CPU:0`."""

    measurable: bool = False
    """Whether the growth of the process during its load is what it takes."""


UNKNOWN = Estimate()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load was measured to take: afterwards, and at its peak. 0 bytes: not measured."""

    steady: Resources
    peak: Resources


@dataclass(frozen=True, slots=True)
class _Factors:
    host: float = 1.0
    accelerator: float = 1.0


@dataclass(frozen=True, slots=True)
class Correction:
    """Measured over estimated, as factors."""

    steady: _Factors = _Factors()
    peak: _Factors = _Factors()

    def costs(self, estimate: Estimate) -> tuple[Cost, Cost]:
        """Return what a version will take once it is loaded, and while it is being loaded."""
        least = cost(estimate.least)
        steady = _scaled(estimate.steady, self.steady).at_least(least)
        return steady, _scaled(estimate.peak, self.peak).at_least(steady)


NOTHING_LEARNT = Correction()


def learn(estimated: tuple[Resources, Resources], measured: Measured) -> Correction:
    """Return the correction from one load.

    `estimated` is what its files alone said: once loaded, and at the peak.
    """
    steady, peak = estimated
    return Correction(_factors(steady, measured.steady), _factors(peak, measured.peak))


def cost(footprint: Footprint) -> Cost:
    """Return what a footprint costs without any correction."""
    return Cost(footprint.shared, footprint.replica, _on_accelerator(footprint))


def believed(seen: Resources, estimated: Resources, least: Resources) -> Resources:
    """Return a measurement; where it has no value the estimate counts, and never below `least`."""
    devices = {
        device: max(seen.on(device) or amount, least.on(device))
        for device, amount in estimated.devices.items()
    }
    return Resources(max(seen.ram or estimated.ram, least.ram), devices)


def _scaled(footprint: Footprint, factors: _Factors) -> Cost:
    return Cost(
        math.ceil(footprint.shared * factors.host),
        math.ceil(footprint.replica * factors.host),
        math.ceil(_on_accelerator(footprint) * factors.accelerator),
    )


def _on_accelerator(footprint: Footprint) -> int:
    if footprint.on_accelerator is None:
        return footprint.replica
    return footprint.on_accelerator


def _factors(estimated: Resources, measured: Resources) -> _Factors:
    return _Factors(
        _factor(estimated.ram, measured.ram),
        _factor(_accelerators(estimated), _accelerators(measured)),
    )


def _factor(estimated: int, measured: int) -> float:
    return measured / estimated if estimated and measured else 1.0


def _accelerators(resources: Resources) -> int:
    return sum(n for device, n in resources.devices.items() if not device.is_host)
