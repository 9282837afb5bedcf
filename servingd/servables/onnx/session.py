"""ONNX Runtime's sessions: how they are opened, run, and what their errors mean."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servingd.core.types import DataType, Device, Signature, Tensors
from servingd.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServingError,
    Unimplemented,
)

_CODES: Mapping[int, type[ServingError]] = {
    2: InvalidArgument,
    3: NotFound,
    7: DataLoss,
    9: Unimplemented,
}
"""By ONNX Runtime's number of an error: what a load reports."""
_TEXT = re.compile(r"\[ONNXRuntimeError\] : (?P<number>\d+) : \w+ : (?P<text>.*)", re.DOTALL)
_SOURCE = re.compile(r"/\S+:\d+ .*?was false\. ")
"""Where in ONNX Runtime's source a condition did not hold."""
_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate|out of memory")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"

_log = logging.getLogger(__name__)


class Session:
    """One session on one device. Runs come from many threads at once."""

    def __init__(
        self, path: str, signature: Signature, device: Device | None, threads: int
    ) -> None:
        """Open the model at `path`. Raises ServingError."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that look for work in turns use up what other calls need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=_providers(onnxruntime.get_available_providers(), device)
            )
        except Exception as error:
            raise load_error(error) from error
        self._quiet = onnxruntime.RunOptions()
        self._quiet.log_severity_level = 4  # a call's error is told to its caller
        self._signature = signature
        self._texts = [a for a, s in signature.inputs.items() if s.data_type is DataType.STRING]
        self.runs = 0
        """Runs under way. Threads may race on it: one more or less is harmless."""

    def run(self, inputs: Tensors, wanted: Sequence[str] = ()) -> dict[str, Any]:
        """Return the outputs `wanted`, or all; all are computed. Raises ServingError."""
        names = list(wanted or self._signature.outputs)
        # A call's inputs may lie anywhere in its message.
        feeds: dict[str, Any] = {
            a: np.require(x, requirements=["C", "A"]) for a, x in inputs.items()
        }
        for alias in self._texts:
            feeds[alias] = _texts(feeds[alias], alias)
        self.runs += 1
        try:
            answers = self._session.run(names, feeds, self._quiet)
        except Exception as error:
            raise _run_error(error) from error
        finally:
            self.runs -= 1
        return {
            name: _bytes(array) if array.dtype.kind == "O" else array
            for name, array in zip(names, answers, strict=True)
        }


def can_use_gpus() -> bool:
    """Return whether models can be placed: ONNX Runtime uses GPUs, and TensorFlow lists them."""
    import onnxruntime

    lists = importlib.util.find_spec("tensorflow") is not None
    return lists and _CUDA in onnxruntime.get_available_providers()


def _providers(available: Sequence[str], device: Device | None) -> list[Any]:
    if device is None or device.is_host:
        return [_CPU]
    if device.kind == "GPU" and _CUDA in available:
        return [(_CUDA, {"device_id": device.index}), _CPU]
    _log.warning("this build of ONNX Runtime cannot use %s: the CPU computes", device)
    return [_CPU]


def _texts(array: Any, alias: str) -> Any:
    """Return strings as ONNX Runtime takes them. Raises InvalidArgument for what is no UTF-8."""
    if array.dtype.kind != "O":
        return array
    texts = np.empty(array.shape, object)
    try:
        texts.ravel()[:] = [value.decode() for value in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"input {alias}: strings of ONNX models are UTF-8: {error}"
        ) from error
    return texts


def _bytes(array: Any) -> Any:
    encoded = np.empty(array.shape, object)
    encoded.ravel()[:] = [value.encode() for value in array.ravel()]
    return encoded


def load_error(error: Exception) -> ServingError:
    """Return what a load reports for an error of ONNX Runtime."""
    number, text = _parts(error)
    return _CODES.get(number, FailedPrecondition)(f"ONNX Runtime: {text}")


def _run_error(error: Exception) -> ServingError:
    """Return what a call gets for an error of ONNX Runtime: a model fails by its inputs."""
    _, text = _parts(error)
    return ResourceExhausted(text) if _MEMORY.search(text) else InvalidArgument(text)


def _parts(error: Exception) -> tuple[int, str]:
    match = _TEXT.match(str(error))
    if match is None:
        return 0, str(error)
    return int(match["number"]), _SOURCE.sub("", " ".join(match["text"].split()))
