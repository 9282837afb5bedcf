"""SignatureDefs to signatures and back."""

from __future__ import annotations

import numpy as np

from servingd.core.types import DataType, Signature, TensorSpec
from servingd.wire.protos import SignatureDef
from servingd.wire.signatures import signature_def, signature_def_map, signature_from_def
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode


def definition() -> SignatureDef:
    made = SignatureDef(method_name="tensorflow/serving/predict")
    x = made.inputs["x"]
    x.name, x.dtype = "x:0", int(DataType.FLOAT)
    x.tensor_shape.dim.add(size=-1)
    x.tensor_shape.dim.add(size=3)
    made.inputs["a"].name = "a:0"
    made.inputs["a"].dtype = 103
    made.inputs["a"].tensor_shape.unknown_rank = True
    made.outputs["y"].coo_sparse.values_tensor_name = "y:0"
    made.outputs["y"].dtype = int(DataType.STRING)
    made.defaults["x"].MergeFromString(encode(np.ones((1, 3), np.float32), DataType.FLOAT))
    return made


def test_signature_says_what_the_definition_says() -> None:
    signature = signature_from_def("serving_default", definition())
    assert signature.name == "serving_default"
    assert signature.method_name == "tensorflow/serving/predict"
    assert list(signature.inputs.items()) == [
        ("a", TensorSpec(DataType.INT32, None, "a:0")),  # a reference to an int32
        ("x", TensorSpec(DataType.FLOAT, (None, 3), "x:0")),
    ]
    assert signature.outputs == {"y": TensorSpec(DataType.STRING, (), "")}
    assert signature.defaults["x"].tolist() == [[1.0, 1.0, 1.0]]


def test_definition_comes_back_as_it_was() -> None:
    signature = signature_from_def("s", definition())
    assert signature_def(signature) == definition()
    assert signature_def_map({"s": signature}).signature_def["s"] == definition()


def test_signature_without_a_definition_gets_one() -> None:
    signature = Signature(
        "s",
        {"x": TensorSpec(DataType.STRING, (None, 2), "in"), "z": TensorSpec(DataType.INT64, None)},
        {"y": TensorSpec(DataType.FLOAT, ())},
        defaults={"z": np.array([4, 5])},
    )
    made = signature_def(signature)
    assert decode(made.defaults["z"], "z").tolist() == [4, 5]
    again = signature_from_def("s", made)
    assert (again.inputs, again.outputs) == (signature.inputs, signature.outputs)
    assert again.method_name == "tensorflow/serving/predict"
