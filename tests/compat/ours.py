"""What servingd makes of a SavedModel: its platform, as the source and the manager use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.errors import ServingError
from servingd.inference.checks import check_served
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.sources.listing import DiskListing
from tests.placed import Outcome


@dataclass
class Ours:
    """A version as we have it: waited for, refused, or loaded."""

    waits: str = ""
    """What it still lacks."""
    refused: ServingError | None = None
    loader: Any = None
    servable: Any = None
    platform: Any = None

    def run(
        self, name: str, inputs: dict[str, Any], wanted: list[str]
    ) -> dict[str, Any] | ServingError:
        """These outputs of a signature, or the error that a client is told."""
        signature, done = self.servable.signatures[name], Outcome()
        done.output_filter = wanted
        try:
            check_served(signature, [*signature.inputs, *wanted])
            self.servable.run(signature, inputs, done)
        except ServingError as error:
            return error
        return {alias: np.asarray(done.outputs[alias]) for alias in wanted}

    def close(self) -> None:
        if self.servable is not None:
            self.loader.unload(self.servable)
        self.platform.stop()


def ours_of(path: Path, tags: tuple[str, ...] = ("serve",), optimize: str = "off") -> Ours:
    """Judge and load a folder as a server does."""
    platform = SavedModelPlatform(SavedModelOptions(tags=tags, optimize_models=optimize))
    found = Ours(platform=platform)
    listing = DiskListing(str(path))
    if not platform.recognises(listing):
        found.waits = "its contents are of no known servable type"
        return found
    found.waits = platform.missing(listing) or ""
    if not found.waits:
        found.loader = platform.loader(ServableId("m", 1), VersionData(str(path), "tensorflow"))
        try:
            found.loader.estimate()
            found.servable = found.loader.load()
        except ServingError as error:
            found.refused = error
    return found
