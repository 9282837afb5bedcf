"""ONNX models as a servable type: which files are one, when they are complete, and the load."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.types import ANYWHERE, Placement, ServableId, Signature, VersionData
from servingd.core.version_files import Listing
from servingd.errors import DataLoss, InvalidArgument, NotFound, Unimplemented
from servingd.machine.memory import trim_heap
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.onnx.model_files import (
    FILE,
    SUFFIX,
    external_names,
    missing_data,
    model_in,
    parse_model,
    spec_of,
)
from servingd.servables.onnx.row_wise.analysis import why_not_row_wise
from servingd.servables.onnx.servable import OnnxServable, find_merging, warm_up
from servingd.servables.onnx.session import Session, can_use_gpus
from servingd.servables.plugin import Loader, Platform
from servingd.wire.protos import OnnxModel

_NONE = f"there is no {FILE}, nor another file *{SUFFIX} that is the only one"
_SESSION_BYTES = 8 << 20
"""Bytes of a session besides its weights."""

_DEVICE_BYTES = 64 << 20
"""Bytes on a GPU besides its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOptions:
    """The `platform_options` of ONNX models."""

    threads: int = 1
    """Threads within an operator of one run; more pay for large models with few calls."""
    merging: Literal["auto", "never"] = "auto"
    """`never`: calls that wait together do not run together."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InvalidArgument(f"threads: expected 1 or more, got {self.threads}")


class OnnxPlatform(Platform):
    """Makes loaders for ONNX models; see `servables.plugin.Platform`."""

    name = "onnx"
    needs = {"onnxruntime": "pip install 'servingd[onnx]'"}  # noqa: RUF012 -- as its base has it
    options_type = OnnxOptions
    trusted = True

    def recognises(self, listing: Listing) -> bool:
        """Return whether there is a model file."""
        return any(name.endswith(SUFFIX) and "/" not in name for name in listing.sizes)

    def missing(self, listing: Listing) -> str | None:
        """Return what a model lacks to be complete: it, and the files with its tensors."""
        name = model_in(listing.sizes)
        if name is None:
            return _NONE
        try:
            return missing_data(parse_model(listing.read(name)), listing.sizes)
        except (DataLoss, InvalidArgument) as error:
            return f"{name} {error.message}"

    def loader(self, servable_id: ServableId, data: VersionData) -> OnnxLoader:
        """Return a loader for one version. Raises InvalidArgument for wrong options."""
        return OnnxLoader(data.path, self.read_options(data.options))


class OnnxLoader(Loader):
    """Loads one model; see `servables.plugin.Loader`."""

    def __init__(self, path: str, options: OnnxOptions) -> None:
        self._path = Path(path)
        self._options = options

    def estimate(self) -> Estimate:
        """Return the sizes of the files, a half more, and three times them while they are read."""
        file = self._file()
        names = [file.name, *external_names(parse_model(file.read_bytes()))]
        size = sum((self._path / name).stat().st_size for name in names)
        there = size * 6 // 5 + _DEVICE_BYTES
        return Estimate(
            steady=Footprint(0, size * 3 // 2 + _SESSION_BYTES, there),
            peak=Footprint(0, 3 * size + _SESSION_BYTES, there),
            on_devices=can_use_gpus(),
        )

    def load(self, placement: Placement = ANYWHERE) -> OnnxServable:
        """Open and warm a session on each device. Raises ServingError."""
        file = self._file()
        try:
            model = parse_model(file.read_bytes())
        except OSError as error:
            raise error_of_file(error) from error
        signature = signature_of(model)
        sessions = [
            Session(str(file), signature, device, self._options.threads)
            for device in placement.devices or (None,)
        ]
        for session in sessions:
            warm_up(session, signature)
        never = "platform_options say never" if self._options.merging == "never" else ""
        merging = find_merging(sessions[0], signature, never or why_not_row_wise(model))
        return OnnxServable(signature, sessions, merging)

    def unload(self, servable: OnnxServable) -> None:
        """Free the sessions, and give their memory back to the system."""
        servable.close()
        gc.collect()
        trim_heap()

    def _file(self) -> Path:
        try:
            names = {entry.name: 0 for entry in os.scandir(self._path) if entry.is_file()}
        except OSError as error:
            raise error_of_file(error) from error
        name = model_in(names)
        if name is None:
            raise NotFound(f"{_NONE} in {self._path}")
        return self._path / name


def signature_of(model: OnnxModel) -> Signature:
    """Return the signature with the graph's names, but for outputs that are no tensors.

    Raises Unimplemented for such an input.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs, outputs = {}, {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        spec = spec_of(value)
        if spec is None:
            raise Unimplemented(f"input {value.name} is no tensor of a type that is served")
        inputs[value.name] = spec
    for value in model.graph.output:
        spec = spec_of(value)
        if spec is not None:
            outputs[value.name] = spec
    if not outputs:
        raise Unimplemented("it has no output that is a tensor of a type that is served")
    return Signature(name="serving_default", inputs=inputs, outputs=outputs)
