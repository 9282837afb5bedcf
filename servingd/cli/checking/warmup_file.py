"""The file with a version's warm-up requests: written from inputs or from a log, and judged."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servingd.cli.calling.typed_inputs import by_name
from servingd.cli.checking.version_folder import find_version, read_version
from servingd.client.answers import Signature
from servingd.client.inputs import arrays_of, misfit
from servingd.core.types import DataType, ModelSpec, ServableId
from servingd.core.types import TensorSpec as CoreTensorSpec
from servingd.errors import InvalidArgument, NotFound, ServingError
from servingd.servables.registry import Platforms
from servingd.wire import protos
from servingd.wire.records.prediction_logs import (
    WARM_UP_FILE,
    Provenance,
    RecordedRequest,
    predict_request,
    prediction_log,
    recorded_request,
)
from servingd.wire.records.tf_records import frame, read_records
from servingd.wire.tensors.decoding import decode


@dataclass(frozen=True, slots=True)
class WarmUpFile:
    """The requests of one version of a SavedModel."""

    path: str
    model: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def of(cls, folder: str, model: str) -> WarmUpFile:
        """Return that of a version's folder. Raises ServingError where there is no SavedModel."""
        found = find_version(folder)
        read = read_version(found, Platforms())
        if read.platform != "tensorflow" or read.incomplete:
            why = read.incomplete or f"it is of type {read.platform}"
            raise InvalidArgument(f"{found}: expected a complete SavedModel: {why}")
        parent, number = os.path.split(found)
        name = model or (os.path.basename(parent) if number.isdigit() else number)
        return cls(
            os.path.join(found, WARM_UP_FILE),
            name,
            int(number) if number.isdigit() else 1,
            read.signatures,
        )

    def from_lines(self, lines: Sequence[Any], name: str, now_s: int) -> list[bytes]:
        """Return records of Predict calls with these inputs. Raises InvalidArgument naming one."""
        signature = self._signature(name)
        kinds = {alias: spec.dtype for alias, spec in signature.inputs.items()}
        records = []
        for number, line in enumerate(lines, 1):
            try:
                inputs = by_name(self.model, line, lambda: kinds)
                records.append(self._record(inputs, name, signature, now_s))
            except ServingError as error:
                raise InvalidArgument(f"line {number}: {error.message}") from error
        return records

    def from_log(self, path: str) -> list[bytes]:
        """Return the records of a log. Raises NotFound, or ServingError for a damaged file."""
        try:
            return list(read_records(path))
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}") from None

    def write(self, records: Sequence[bytes]) -> str:
        """Replace the file by one rename; return its path. Raises OSError."""
        folder = os.path.dirname(self.path)
        os.makedirs(folder, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                out.writelines(map(frame, records))
            os.chmod(new, 0o644)
            os.replace(new, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
        return self.path

    def judged(self) -> Iterator[tuple[str, str]]:
        """Yield the kind of each request, and what is wrong with it; empty: nothing."""
        if not os.path.exists(self.path):
            raise NotFound(f"there is no file {self.path}")
        for record in read_records(self.path):
            try:
                request = recorded_request(record)
            except InvalidArgument as error:
                yield "unreadable", error.message
                continue
            kind = request.kind.removesuffix("_log") if request else "empty"
            yield kind, self._judge(request) if request else "it holds no request"

    def _record(
        self, inputs: Mapping[str, Any], name: str, signature: Signature, now_s: int
    ) -> bytes:
        arrays = arrays_of(self.model, inputs, signature)
        if wrong := misfit(arrays, signature):
            raise InvalidArgument(wrong[1])
        specs = {
            alias: CoreTensorSpec(DataType[spec.dtype], spec.shape)
            for alias, spec in signature.inputs.items()
        }
        request = predict_request(ModelSpec(self.model, signature_name=name), arrays, specs)
        servable_id = ServableId(self.model, self.version)
        return prediction_log(
            servable_id, "predict_log", request, b"", Provenance(now_s, ("serve",), 1.0)
        )

    def _judge(self, request: RecordedRequest) -> str:
        if request.kind != "predict_log":
            return ""
        message = protos.PredictRequest.FromString(request.content)
        try:
            signature = self._signature(message.model_spec.signature_name or "serving_default")
            arrays = {alias: decode(tensor, alias) for alias, tensor in message.inputs.items()}
        except ServingError as error:
            return error.message
        wrong = misfit(arrays, signature)
        return wrong[1] if wrong else ""

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            known = ", ".join(self.signatures) or "none"
            raise NotFound(f"there is no signature {name}; there are: {known}")
        return self.signatures[name]
