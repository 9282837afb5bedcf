"""Predict in parts: as Predict, with the runners of streams in the place of the ordinary ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from servingd.core.call_protocols import (
    Models,
    PartsReceiver,
    ServableHandle,
    SignatureRunner,
    StreamRunners,
)
from servingd.core.types import ModelSpec
from servingd.inference.checks import NO_CHECKS, Checks
from servingd.inference.predict import PredictCall, predict


class PredictStreamedCall(PartsReceiver, PredictCall, Protocol):
    """A Predict call that is answered in parts."""


def predict_streamed(models: Models, call: PredictStreamedCall, checks: Checks = NO_CHECKS) -> None:
    """Begin one call; it is answered later. A ServingError that is raised is its failure."""
    predict(_StreamedModels(models), call, checks)


class _StreamedModels:
    """The same models; each handle has the runners of streams."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def acquire(self, spec: ModelSpec) -> ServableHandle:
        return _StreamedHandle(self._models.acquire(spec))


class _StreamedHandle:
    """A handle whose runners take calls that are a `PartsReceiver`."""

    def __init__(self, handle: ServableHandle) -> None:
        self.id = handle.id
        self.metadata = handle.metadata
        self.streams: StreamRunners = handle.streams
        # `predict` looks a name up and gives the runner its call, which is a PartsReceiver here.
        self.runners = cast("Mapping[str, SignatureRunner]", handle.streams)
        self.release = handle.release
