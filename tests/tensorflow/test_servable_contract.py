"""What every servable type keeps: one contract, run on each type that is registered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import DataType, Tensors, TensorSpec
from servingd.errors import Code
from servingd.servables.registry import Platforms
from servingd.testing.contract import Case, ServableContract
from tests.side_by_side import made_once
from tests.unit.servables.assembled.composite.fakes import FakeModels, FakePart

pytestmark = pytest.mark.tf


def platforms(**given: Any) -> Callable[[], Platforms]:
    return lambda: Platforms(SavedModelOptions(optimize_models="off", **given), allow_code=True)


def text(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values], object)


def half_plus_two(n: int) -> tuple[Tensors, Tensors]:
    x = np.arange(n, n + 3, dtype=np.float32)
    return {"x": x}, {"y": x / 2 + 2}


def look_up(n: int) -> tuple[Tensors, Tensors]:
    known = n % 3
    return {"keys": text(str(known), "none")}, {"values": text(("a", "b", "c")[known], "")}


def write_table(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "table.csv").write_text("0,a\n1,b\n2,c\n")


COLUMNS = {"id": "int64", "name": "string", "v": "float32[2]"}


def look_up_columns(n: int) -> tuple[Tensors, Tensors]:
    known = n % 3
    vectors = np.array([[known, 0.5], [0, 0]], np.float32)
    return {"id": np.array([known, -1])}, {"name": text("abc"[known], ""), "v": vectors}


def write_columns(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "table.csv").write_text("id,name,v\n0,a,0 .5\n1,b,1 .5\n2,c,2 .5\n")
    (path / "schema.json").write_text(json.dumps({"key": "id", "columns": COLUMNS}))


def write_csv(path: Path) -> None:
    write_columns(path)
    (path / "schema.json").unlink()


def write_parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.mkdir(parents=True)
    rows = [{"id": i, "name": "abc"[i], "v": [i, 0.5]} for i in range(3)]
    kinds = [("id", pa.int64()), ("name", pa.string()), ("v", pa.list_(pa.float32(), 2))]
    parquet.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), path / "table.parquet")


def write_onnx(path: Path) -> None:
    """x / 2 + 2, with its numbers in a file beside it."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    path.mkdir(parents=True)
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows"]) for n in "xy")
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["part"]),
        helper.make_node("Add", ["part", "two"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([value], np.float32), name)
        for name, value in (("half", 0.5), ("two", 2.0))
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, path / "model.onnx", save_as_external_data=True, location="w.data", size_threshold=0
    )


def write_sklearn(path: Path) -> None:
    """x / 2 + 2 of one feature."""
    io = pytest.importorskip("skops.io")
    from sklearn.linear_model import LinearRegression

    path.mkdir(parents=True)
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    model.coef_, model.intercept_ = np.array([0.5]), np.float64(2)
    io.dump(model, path / "model.skops")


def predicted(n: int) -> tuple[Tensors, Tensors]:
    x = np.arange(n, n + 3, dtype=np.float64)[:, None]
    return {"features": x}, {"predictions": x[:, 0] / 2 + 2}


def write_keras(path: Path) -> None:
    """x / 2 + 2 of one feature."""
    import keras

    path.mkdir(parents=True)
    model = keras.Sequential([keras.Input((1,), name="x"), keras.layers.Dense(1)])
    model.set_weights([np.array([[0.5]]), np.array([2.0])])
    model.save(path / "model.keras")


def half_of_a_feature(n: int) -> tuple[Tensors, Tensors]:
    x = np.arange(n, n + 3, dtype=np.float32)[:, None]
    return {"x": x}, {"output_0": x / 2 + 2}


PYTHON = """
import numpy as np

from servingd.errors import InvalidArgument
from servingd.servables.plugin import Servable, signature


class HalfPlusTwo(Servable):
    signatures = {
        "serving_default": signature(inputs={"x": ("FLOAT", None)}, outputs={"y": ("FLOAT", None)})
    }

    def __init__(self, version):
        pass

    def predict(self, signature, inputs):
        if inputs["x"].dtype != np.float32:
            raise InvalidArgument("x: expected floats")
        return {"y": inputs["x"] / 2 + 2}


servable = HalfPlusTwo
"""


def write_python(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "model.py").write_text(PYTHON)


def write_composite(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "composite.yaml").write_text(
        "steps:\n"
        "  half: {model: half, inputs: {x: x}}\n"
        "  sum: {model: plus_two, inputs: {x: half.y}}\n"
        "outputs: {y: sum.y}\n"
        "...\n"
    )


def with_parts() -> Platforms:
    made = platforms()()
    spec = {"x": TensorSpec(DataType.FLOAT, None)}, {"y": TensorSpec(DataType.FLOAT, None)}
    made.parts.models = FakeModels(
        half=FakePart(lambda x: {"y": x / 2}, *spec),
        plus_two=FakePart(lambda x: {"y": x + 2}, *spec),
    )
    return made


def write_shards(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "shards.yaml").write_text(
        "key: keys\nby: hash\nshards:\n- [{model: a}]\n- [{model: b}]\n...\n"
    )


def with_shards() -> Platforms:
    made = platforms()()
    spec = {"keys": TensorSpec(DataType.INT64, None)}, {"values": TensorSpec(DataType.INT64, None)}
    part = FakePart(lambda keys: {"values": keys + 1}, *spec)
    made.parts.models = FakeModels(a=part, b=part)
    return made


def count_on(n: int) -> tuple[Tensors, Tensors]:
    keys = np.arange(n, n + 5)
    return {"keys": keys}, {"values": keys + 1}


def copies(folder: str) -> Callable[[Path, Path], object]:
    return lambda path, exports: shutil.copytree(exports / folder, path)


CASES: Mapping[str, Mapping[str, Any]] = {
    "tensorflow": {
        "exports": "models",
        "make": copies("half_plus_two"),
        "needed": (
            "saved_model.pb",
            "variables/variables.index",
            "variables/variables.data-00000-of-00001",
        ),
        "question": half_plus_two,
        "bad_question": {"x": np.array(["one"], object)},
        "damage": {b"": Code.NOT_FOUND, b"\xff\xff garbage": Code.DATA_LOSS},
    },
    "TF Lite": {
        "name": "tensorflow",
        "exports": "tflite_models",
        "make": copies("tflite"),
        "needed": ("model.tflite",),
        "question": half_plus_two,
        "bad_question": {"x": np.array(["one"], object)},
        "damage": {b"": Code.DATA_LOSS, b"\xff\xff garbage": Code.DATA_LOSS},
        "platforms": platforms(prefer_tflite_model=True, num_tflite_pools=2),
    },
    "lookup_table": {
        "make": write_table,
        "needed": ("table.csv",),
        "question": look_up,
        "damage": {b"one\n": Code.INVALID_ARGUMENT, b'"a"b,c\n': Code.INVALID_ARGUMENT},
    },
    "composite": {
        "make": write_composite,
        "needed": ("composite.yaml",),
        "question": half_plus_two,
        "platforms": with_parts,
        "damage": {b"steps: {}\n...\n": Code.INVALID_ARGUMENT},
    },
    "sharded": {
        "make": write_shards,
        "needed": ("shards.yaml",),
        "question": count_on,
        "platforms": with_shards,
        "bad_question": {"keys": np.zeros(2, np.float32)},
        "damage": {b"shards: {}\n...\n": Code.INVALID_ARGUMENT},
    },
    "columns of CSV": {
        "name": "lookup_table",
        "make": write_columns,
        "needed": ("table.csv",),
        "question": look_up_columns,
        "damage": {b"one\n": Code.INVALID_ARGUMENT, b"id,name,v\nx,y,z\n": Code.INVALID_ARGUMENT},
    },
    "columns by options": {
        "name": "lookup_table",
        "make": write_csv,
        "needed": ("table.csv",),
        "question": look_up_columns,
        "damage": {b"one\n": Code.INVALID_ARGUMENT},
        "options": {"key": "id", "columns": COLUMNS},
    },
    "columns of Parquet": {
        "name": "lookup_table",
        "make": write_parquet,
        "needed": ("table.parquet",),
        "question": look_up_columns,
        "damage": {b"PAR1": Code.DATA_LOSS, b"PAR1\0\0\0\0PAR1": Code.DATA_LOSS},
    },
    "onnx": {
        "make": write_onnx,
        "needed": ("model.onnx", "w.data"),
        "question": half_plus_two,
        "bad_question": {"x": np.array(["one"], object)},
        "damage": {b"": Code.DATA_LOSS, b"\xff\xff garbage": Code.DATA_LOSS},
    },
    "keras": {
        "exports": "keras_file",
        "make": lambda path, file: shutil.copytree(file, path),
        "needed": ("model.keras",),
        "question": half_of_a_feature,
        "bad_question": {"x": np.array(["one"], object)},
        "damage": {b"\xff\xff garbage": Code.FAILED_PRECONDITION},
    },
    "sklearn": {
        "make": write_sklearn,
        "needed": ("model.skops",),
        "question": predicted,
        "bad_question": {"features": np.array([[b"one"]], object)},
        "damage": {b"": Code.DATA_LOSS, b"\xff\xff garbage": Code.DATA_LOSS},
    },
    "python": {
        "make": write_python,
        "needed": ("model.py",),
        "question": half_plus_two,
        "bad_question": {"x": np.array([1], np.int32)},
        "damage": {
            b"servable = 1 +\n": Code.FAILED_PRECONDITION,
            b"import nothing_of_this_name\n": Code.FAILED_PRECONDITION,
        },
    },
}
"""By type, or by a name of its own for a second way to serve one: the fields of its `Case`. What
`make` copies from is the fixture that `exports` names."""


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory) -> Path:
    """A version, and beside it what it was exported as, which takes seconds."""
    return (
        made_once(
            tmp_path_factory.getbasetemp(), "keras_file", lambda root: write_keras(root / "1")
        )
        / "1"
    )


class TestServables(ServableContract):
    @pytest.fixture(params=sorted({*Platforms().names, *CASES}))
    def case(self, request) -> Case:
        assert request.param in CASES, "a servable type has no case in this test"
        fields = {"name": request.param, "platforms": platforms(), **CASES[request.param]}
        if exports := fields.pop("exports", None):
            folder, make = request.getfixturevalue(exports), fields["make"]
            fields["make"] = lambda path: make(path, folder)
            if request.param == "keras":
                fields["platforms"] = platforms(cache_dir=str(folder.parent / "cache"))
        return Case(**fields)
