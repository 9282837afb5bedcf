"""What loads of a model have taught of its next one: by how much their estimates were wrong.

Estimates come from files, and the same rule of thumb errs in the same way for all versions of a
model. So the next estimate is the files' one times measured over estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from servingd.core.resources.placement import Cost
from servingd.core.types import Resources


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a version: of the host's memory once, and of each replica on its own device."""

    shared: int = 0
    replica: int = 0
    on_accelerator: int | None = None
    """Of a replica, where a device has memory of its own; None: as much as on the host."""


NOTHING = Footprint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a version will take, as its loader reads from its files: upper bounds."""

    steady: Footprint = NOTHING
    """Once it is loaded."""

    peak: Footprint = NOTHING
    """While it is being loaded; less than `steady` means the same as it."""

    growth: Footprint = NOTHING
    """Besides, while it turns into what it may become later; nothing: it stays what it is."""

    grown: Footprint = NOTHING
    """Instead of `steady`, once it has."""

    least: Footprint = NOTHING
    """What must be in memory: no measurement goes below it."""

    on_devices: bool = False
    """Whether it runs on devices; else it is on `CPU:0`, whatever there is."""

    measurable: bool = False
    """Whether what the process grows by during its load tells what it takes."""


UNKNOWN = Estimate()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load was seen to take: afterwards, and at most. 0 bytes say nothing."""

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
        """What a version will take once it is loaded, and while it is being loaded."""
        least = cost(estimate.least)
        steady = _scaled(estimate.steady, self.steady).at_least(least)
        return steady, _scaled(estimate.peak, self.peak).at_least(steady)


NOTHING_LEARNT = Correction()


def learn(estimated: tuple[Resources, Resources], measured: Measured) -> Correction:
    """A correction from one load; `estimated` is what its files alone said, steady and at most."""
    steady, peak = estimated
    return Correction(_factors(steady, measured.steady), _factors(peak, measured.peak))


def cost(footprint: Footprint) -> Cost:
    """What a footprint costs where nothing has been learnt."""
    return Cost(footprint.shared, footprint.replica, _on_accelerator(footprint))


def believed(seen: Resources, estimated: Resources, least: Resources) -> Resources:
    """A measurement, filled up where it says nothing, and never below what must be there."""
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
