"""Functions as the row-wise analysis sees a SavedModel: a graph, a signature, a way to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.wire import protos
from servingd.wire.tensors.types import data_type_of

NAMES = "xyz"


class Traced:
    """A function of tensors, traced by TensorFlow."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> None:
        import tensorflow as tf

        names = ["x", "z"] if len(inputs) == 2 else NAMES[: len(inputs)]
        specs = [
            tf.TensorSpec(shape, kind, name=name)
            for name, (kind, *shape) in zip(names, inputs, strict=True)
        ]
        whole = tf.function(lambda *args: {"out": function(*args)}, input_signature=specs)
        self._call = whole.get_concrete_function()
        graph = self._call.graph
        self.graph = protos.Graph.FromString(graph.as_graph_def().SerializeToString())
        placeholders = graph.inputs[: len(inputs)]
        self.signature = Signature(
            "serving_default",
            {n: _spec(t) for n, t in zip(names, placeholders, strict=True)},
            {"out": _spec(graph.structured_outputs["out"])},
        )

    def run(self, inputs: Tensors) -> np.ndarray[Any, Any]:
        """The answer, by TensorFlow."""
        import tensorflow as tf

        args = [
            tf.constant(array.tolist() if array.dtype == object else array, spec.dtype)
            for array, spec in zip(inputs.values(), self._call.inputs, strict=False)
        ]
        return self._call(*args)["out"].numpy()


def _spec(tensor: Any) -> TensorSpec:
    dtype = np.dtype(object) if tensor.dtype.name == "string" else np.dtype(tensor.dtype.name)
    shape = tensor.shape.as_list() if tensor.shape.rank is not None else None
    return TensorSpec(data_type_of(dtype), None if shape is None else tuple(shape), tensor.name)
