"""Estimators of scikit-learn as a servable type: which files are one, and the load."""

from __future__ import annotations

import gc
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.types import ANYWHERE, Placement, ServableId, VersionData
from servingd.core.version_files import Listing
from servingd.errors import FailedPrecondition, NotFound, PermissionDenied
from servingd.machine.memory import trim_heap
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.files.source import ListedFile
from servingd.servables.plugin import Loader, Platform
from servingd.servables.sklearn.inputs import inputs_of
from servingd.servables.sklearn.model_files import (
    JOBLIB,
    SKOPS,
    damage_of_joblib,
    damage_of_skops,
    load_joblib,
    load_skops,
)
from servingd.servables.sklearn.row_wise import why_not_row_wise
from servingd.servables.sklearn.servable import SklearnServable

_INSTALL = "pip install 'servingd[sklearn]'"
_NONE = f"there is no {SKOPS} or {JOBLIB}"
_BASE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SklearnOptions:
    """The `platform_options` of estimators."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Types by input: float64 (the default), float32, int32, int64, bool or string."""
    trusted_types: tuple[str, ...] = ()
    """Types besides scikit-learn's and numpy's that a file may have in it, as `module.Class`."""
    allow_pickle: bool = False
    """Whether `model.joblib` is loaded: a pickle, which runs what code it likes."""
    merging: Literal["auto", "never"] = "auto"
    """`never`: calls that wait together do not run together."""


class SklearnPlatform(Platform):
    """Makes loaders for estimators; see `servables.plugin.Platform`."""

    name = "sklearn"
    needs: Mapping[str, str] = {"sklearn": _INSTALL, "skops": _INSTALL}
    options_type = SklearnOptions
    trusted = True

    def __init__(self, allow_code: bool = False) -> None:
        """`allow_code`: pickles may be loaded, if a model's options say so, too."""
        self._allow_code = allow_code

    def recognises(self, listing: Listing) -> bool:
        """Return whether there is an estimator's file."""
        return SKOPS in listing.sizes or JOBLIB in listing.sizes

    def missing(self, listing: Listing) -> str | None:
        """Return what a file lacks to be complete; None if nothing."""
        if SKOPS in listing.sizes:
            damage = damage_of_skops(ListedFile(listing, SKOPS))
            return damage and f"{SKOPS} {damage}"
        if JOBLIB not in listing.sizes:
            return _NONE
        damage = damage_of_joblib(ListedFile(listing, JOBLIB))
        return damage and f"{JOBLIB} {damage}"

    def loader(self, servable_id: ServableId, data: VersionData) -> SklearnLoader:
        """Return a loader for one version. Raises PermissionDenied if code is not allowed."""
        options = self.read_options(data.options)
        if options.allow_pickle and not self._allow_code:
            raise PermissionDenied(
                "platform_options.allow_pickle: --allow_python_models lets the server run the "
                "code in pickles"
            )
        return SklearnLoader(data.path, options)


class SklearnLoader(Loader):
    """Loads one estimator; see `servables.plugin.Loader`."""

    def __init__(self, path: str, options: SklearnOptions) -> None:
        self._path = Path(path)
        self._options = options

    def estimate(self) -> Estimate:
        """Return twice what a file holds, uncompressed, and thrice while it is read."""
        file = self._file()
        size = file.stat().st_size
        if file.name == SKOPS:
            with zipfile.ZipFile(file) as archive:
                size = sum(member.file_size for member in archive.infolist())
        return Estimate(
            steady=Footprint(2 * size + _BASE_BYTES), peak=Footprint(3 * size + _BASE_BYTES)
        )

    def load(self, placement: Placement = ANYWHERE) -> SklearnServable:
        """Read the file, and try each method on made-up rows. Raises ServingError."""
        file, options = self._file(), self._options
        if file.name == JOBLIB and not options.allow_pickle:
            raise FailedPrecondition(
                f"{JOBLIB} is a pickle, which runs code when it is loaded: save the estimator by "
                f"skops.io.dump as {SKOPS}; or set platform_options.allow_pickle and "
                "--allow_python_models"
            )
        try:
            estimator = (
                load_joblib(file)
                if file.name == JOBLIB
                else load_skops(file, options.trusted_types)
            )
        except OSError as error:
            raise error_of_file(error) from error
        _use_one_thread(estimator)
        never = "platform_options say never" if options.merging == "never" else ""
        return SklearnServable(
            estimator, inputs_of(estimator, options.inputs), never or why_not_row_wise(estimator)
        )

    def unload(self, servable: SklearnServable) -> None:
        """Drop the estimator, and give its memory back to the system."""
        servable.close()
        gc.collect()
        trim_heap()

    def _file(self) -> Path:
        for name in (SKOPS, JOBLIB):
            if (self._path / name).is_file():
                return self._path / name
        raise NotFound(f"{_NONE} in {self._path}")


def _use_one_thread(estimator: Any) -> None:
    """Let calls run in their own threads: threads for each call cost more than they save."""
    parameters = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    names = [name for name in parameters if name == "n_jobs" or name.endswith("__n_jobs")]
    if names:
        estimator.set_params(**dict.fromkeys(names, 1))
