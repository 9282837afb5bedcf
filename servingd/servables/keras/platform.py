"""Keras files as a servable type: which they are, when they are complete, and the load."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servingd.config.saved_model import SavedModelOptions
from servingd.core.resources.footprints import Estimate
from servingd.core.types import ANYWHERE, Device, Placement, ServableId, VersionData
from servingd.core.version_files import Listing
from servingd.errors import NotFound, PermissionDenied
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.files.source import ListedFile
from servingd.servables.files.whole_files import damage_of_hdf5, damage_of_zip
from servingd.servables.keras.exports import (
    CHILD_BYTES,
    CHILD_WEIGHTS,
    Export,
    Exporter,
    ExportJob,
)
from servingd.servables.plugin import Loader, Platform
from servingd.servables.saved_model.files.estimate import estimate_of

if TYPE_CHECKING:
    from servingd.servables.saved_model.platform import SavedModelPlatform

_ARCHIVE, _HDF5 = ".keras", ".h5"
_WEIGHTS = ".weights.h5"
_MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
_NONE = f"there is no file *{_ARCHIVE} or *{_HDF5} that is the only one"
_INSTALL = "pip install 'servingd[keras]'"
_GRAPH_BYTES = 16 << 20
"""Bytes of a session besides its weights, of a model whose graph is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasOptions:
    """The `platform_options` of Keras models."""

    allow_code: bool = False
    """Whether a model may have code of its own in it, as Lambda layers do."""


class KerasPlatform(Platform):
    """Makes loaders for Keras files; see `servables.plugin.Platform`."""

    name = "keras"
    needs: Mapping[str, str] = {"keras": _INSTALL, "tensorflow": _INSTALL}
    options_type = KerasOptions
    trusted = True

    def __init__(
        self,
        saved_models: Callable[[], SavedModelPlatform],
        options: SavedModelOptions,
        allow_code: bool = False,
    ) -> None:
        """`saved_models` returns the type that serves what is exported.

        `allow_code`: models may have code in them, if their options say so, too.
        """
        self._saved_models = saved_models
        self._options = options
        self._exporter = Exporter(options.cache_dir, options.extensions)
        self._allow_code = allow_code

    def recognises(self, listing: Listing) -> bool:
        """Return whether there is such a file, complete or not."""
        return bool(_candidates(listing.sizes))

    def missing(self, listing: Listing) -> str | None:
        """Return what a file lacks to be complete; None if nothing."""
        names = _candidates(listing.sizes)
        if len(names) != 1:
            return _NONE
        source = ListedFile(listing, names[0])
        if names[0].endswith(_ARCHIVE):
            damage = damage_of_zip(source, _MEMBERS)
        else:
            damage = damage_of_hdf5(source)
        return damage and f"{names[0]} {damage}"

    def loader(self, servable_id: ServableId, data: VersionData) -> KerasLoader:
        """Return a loader for one version. Raises PermissionDenied if code is not allowed."""
        options = self.read_options(data.options)
        if options.allow_code and not self._allow_code:
            raise PermissionDenied(
                "platform_options.allow_code: --allow_python_models lets the server run such code"
            )
        return KerasLoader(
            servable_id,
            data,
            self._exporter,
            self._saved_models(),
            self._options,
            options.allow_code,
        )


class KerasLoader(Loader):
    """Loads one file by way of a SavedModel; see `core.servable.Loader` and `Relocates`."""

    def __init__(
        self,
        servable_id: ServableId,
        data: VersionData,
        exporter: Exporter,
        saved_models: SavedModelPlatform,
        options: SavedModelOptions,
        allow_code: bool,
    ) -> None:
        self._id = servable_id
        self._data = data
        self._exporter = exporter
        self._saved_models = saved_models
        self._options = options
        self._allow_code = allow_code
        self._job = ExportJob()
        self._export: Export | None = None  # while it is loaded
        self._inner: Any = None  # the loader of what was exported

    def estimate(self) -> Estimate:
        """Return what the SavedModel of its weights takes; while it loads, the child as well."""
        size = self._file().stat().st_size
        found = estimate_of(size, 0, 0, _GRAPH_BYTES, self._options)
        peak = replace(found.peak, shared=found.peak.shared + CHILD_BYTES + CHILD_WEIGHTS * size)
        return replace(found, peak=peak)

    def load(self, placement: Placement = ANYWHERE) -> Any:
        """Export the file, unless that was done before, and load the SavedModel."""
        file = self._file()
        self._export = self._exporter.export(file, self._allow_code, self._job)
        data = VersionData(self._export.path, "tensorflow", self._data.fingerprint)
        self._inner = self._saved_models.loader(self._id, data)
        try:
            return self._inner.load(placement)
        except BaseException:
            self._forget()
            raise

    def cancel(self) -> None:
        """End the child, or the load of what it made."""
        self._job.cancel()
        if self._inner is not None:
            self._inner.cancel()

    def grow(self) -> None:
        """Allow the SavedModel's growth."""
        if self._inner is not None:
            self._inner.grow()

    def relocate(self, failed: Device, to: Device | None) -> tuple[Device, ...]:
        """Move a replica; see `Relocates`."""
        moved: tuple[Device, ...] = self._inner.relocate(failed, to) if self._inner else ()
        return moved

    def unload(self, servable: Any) -> None:
        """Free the sessions, and remove an export that is not kept."""
        inner = self._inner
        inner.unload(servable)
        self._forget()

    def _forget(self) -> None:
        export, self._export, self._inner = self._export, None, None
        if export is not None:
            export.discard()

    def _file(self) -> Path:
        path = Path(self._data.path)
        try:
            names = _candidates({entry.name: 0 for entry in os.scandir(path) if entry.is_file()})
        except OSError as error:
            raise error_of_file(error) from error
        if len(names) != 1:
            raise NotFound(f"{_NONE} in {path}")
        return path / names[0]


def _candidates(names: Mapping[str, int]) -> list[str]:
    """Return the files of a version that may be its model."""
    return [
        name
        for name in names
        if name.endswith((_ARCHIVE, _HDF5)) and not name.endswith(_WEIGHTS) and "/" not in name
    ]
