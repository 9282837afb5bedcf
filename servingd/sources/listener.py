"""The interface to whoever a source reports to: the control plane of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from servingd.config.models import ModelConfig
from servingd.core.types import AspiredVersions


class SourceListener(Protocol):
    """What a source reports. All methods are called from its thread, and return at once."""

    def models_configured(self, configured: Mapping[str, ModelConfig]) -> None:
        """Take all models that ought to be served, by name, in the place of the last ones.

        Called before versions of a new model are aspired, and before those of one that is gone are
        withdrawn.
        """
        ...

    def set_aspired_versions(self, aspired: AspiredVersions) -> None:
        """Take the versions of one model that ought to be loaded.

        As in TensorFlow Serving, a version that is left out is to be unloaded.
        """
        ...

    def no_version_found(self, name: str, reason: str) -> None:
        """Note why no version of a model can be loaded, or that its folder does not answer.

        Called after each scan for which that holds; and once with an empty reason when the folder
        answers again.
        """
        ...
