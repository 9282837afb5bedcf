"""What a version takes in all workers together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from servingd.core.resources.footprints import Estimate, Footprint, Measured
from servingd.core.types import NO_BYTES


def times(estimate: Estimate, workers: int) -> Estimate:
    """Return an estimate for so many workers; they optimise one after the other."""
    return dataclasses.replace(
        estimate,
        steady=_times(estimate.steady, workers),
        peak=_times(estimate.peak, workers),
        grown=_times(estimate.grown, workers),
        least=_times(estimate.least, workers),
    )


def _times(footprint: Footprint, workers: int) -> Footprint:
    accelerator = footprint.on_accelerator
    return Footprint(
        footprint.shared * workers,
        footprint.replica * workers,
        None if accelerator is None else accelerator * workers,
    )


def total(measured: Iterable[Measured | None]) -> Measured | None:
    """Return what all workers together were measured to take; None if one was not measured."""
    steady, peak = NO_BYTES, NO_BYTES
    for each in measured:
        if each is None:
            return None
        steady, peak = steady + each.steady, peak + each.peak
    return Measured(steady, peak)
