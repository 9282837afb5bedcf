"""The methods of an estimator as signatures: what each takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import InvalidArgument, ResourceExhausted, ServingError
from servingd.servables.sklearn.inputs import Inputs
from servingd.servables.synthetic_inputs import synthetic_inputs
from servingd.wire.tensors.types import data_type_of

DEFAULT = "serving_default"
_OUTPUTS = {
    "predict": "predictions",
    "predict_proba": "probabilities",
    "decision_function": "decisions",
    "transform": "transformed",
}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of an estimator."""

    call: Callable[[Any], Any]
    output: str
    inputs: Inputs
    classes: Any = None
    """The names of the probabilities, in order; None for other methods."""

    def run(self, inputs: Tensors) -> dict[str, Any]:
        """Return the outputs. Raises ServingError."""
        try:
            values = _as_array(self.call(self.inputs.samples(inputs)))
        except ServingError:
            raise
        except MemoryError as error:
            raise ResourceExhausted("there is not enough memory for the call") from error
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidArgument(" ".join(str(error).split())) from error
        if self.classes is None:
            return {self.output: values}
        # One line for each row, as in TensorFlow Serving's Classify: each row stands by itself.
        classes = np.broadcast_to(self.classes, (len(values), len(self.classes)))
        return {self.output: values, "classes": classes}


def methods_of(estimator: Any, inputs: Inputs) -> dict[str, Method]:
    """Return the methods of a fitted estimator by signature. Raises InvalidArgument for none."""
    found: dict[str, Method] = {}
    for name, output in _OUTPUTS.items():
        call = getattr(estimator, name, None)
        classes = getattr(estimator, "classes_", None) if name == "predict_proba" else None
        if call is None or isinstance(classes, list):  # of several targets: a list of answers
            continue
        named = None if classes is None else _as_array(classes)
        found[name] = Method(call, output, inputs, named)
    if not found:
        raise InvalidArgument(f"{type(estimator).__name__} has none of {', '.join(_OUTPUTS)}")
    return {DEFAULT: found.get("predict") or next(iter(found.values())), **found}


def signatures_of(estimator: Any, methods: Mapping[str, Method]) -> dict[str, Signature]:
    """Return the signatures; types and shapes of outputs are those of an answer to made-up rows.

    An estimator that refuses such rows (categories that it does not know) has the types of its
    classes, or float64, and shapes that are not known.
    """
    return {name: _signature(name, estimator, method) for name, method in methods.items()}


def _signature(name: str, estimator: Any, method: Method) -> Signature:
    draft = Signature(name=name, inputs=method.inputs.specs, outputs={})
    rows = synthetic_inputs(draft, 2)
    try:
        if rows is None:
            raise InvalidArgument("inputs would be too large")
        answer = method.run(rows)
        outputs = {
            alias: _spec(alias, a.dtype, (None, *a.shape[1:])) for alias, a in answer.items()
        }
    except ServingError:
        dtype = np.dtype(np.float64)
        if method.output == "predictions" and hasattr(estimator, "classes_"):
            dtype = _as_array(estimator.classes_).dtype
        outputs = {method.output: _spec(method.output, dtype, None)}
        if method.classes is not None:
            outputs["classes"] = _spec("classes", method.classes.dtype, (None, len(method.classes)))
    return Signature(name=name, inputs=method.inputs.specs, outputs=outputs)


def _spec(alias: str, dtype: Any, shape: tuple[int | None, ...] | None) -> TensorSpec:
    return TensorSpec(data_type_of(dtype), shape, f"{alias}:0")


def _as_array(values: Any) -> Any:
    """Return an answer as a dense array; texts as bytes."""
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if array.dtype.kind not in "OU":
        return array
    encoded = np.empty(array.shape, object)
    encoded.ravel()[:] = [str(value).encode() for value in array.ravel()]
    return encoded
