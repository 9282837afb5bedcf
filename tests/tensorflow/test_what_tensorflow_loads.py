"""What TensorFlow's loader loads is loaded here; what cannot be served costs itself alone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.errors import Code, InvalidArgument, ServingError
from servingd.inference.checks import check_served
from servingd.servables.saved_model.files.completeness import what_is_missing
from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.sources.listing import DiskListing
from tests.exports import save_tf1, tensor_info
from tests.placed import Outcome

pytestmark = pytest.mark.tf

TAGS = ("serve",)
X = np.array([1.0, 2.0, 5.0], np.float32)


@pytest.fixture
def load(tmp_path):
    """Load a folder as a server does; the servable."""
    platform = SavedModelPlatform(SavedModelOptions(optimize_models="off"))
    loaded = []

    def begin(path):
        assert what_is_missing(DiskListing(str(path)), TAGS) is None
        data = VersionData(str(path), "tensorflow")
        loader = platform.loader(ServableId("m", 1), data)
        loader.estimate()
        servable = loader.load()
        loaded.append((loader, servable))
        return servable

    yield begin
    for loader, servable in loaded:
        loader.unload(servable)
    platform.stop()


def call(servable, name="serving_default", **inputs):
    done = Outcome()
    servable.run(servable.signatures[name], inputs, done)
    return {alias: np.asarray(value).tolist() for alias, value in done.outputs.items()}


def test_a_graph_in_text_format(load, tmp_path):
    path = tmp_path / "1"
    save_tf1(path, lambda x, y: {"serving_default": ({"x": x}, {"y": y})}, as_text=True)
    assert (path / "saved_model.pbtxt").exists()
    assert call(load(path), x=X) == {"y": [2.5, 3.0, 4.5]}


def test_a_graph_in_text_format_with_tables_and_assets(load, models, tmp_path):
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    path = tmp_path / "1"
    shutil.copytree(models / "tf1_with_table", path)
    binary = path / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    binary.unlink()
    text = text_format.MessageToString(message)
    (path / "saved_model.pbtxt").write_text(text)
    words = np.array([b"dog", b"cat"], object)
    assert call(load(path), words=words) == {"ids": [1, 0], "score": [10.0, 1.0]}

    for length in (0, 10, len(text) // 2, len(text) - 3):  # a copy that goes on
        (path / "saved_model.pbtxt").write_text(text[:length])
        reason = what_is_missing(DiskListing(str(path)), TAGS)
        assert str(reason).startswith("saved_model.pbtxt ")
    (path / "saved_model.pbtxt").write_text("meta_graphs { meta_info_def { tags: 7 } }")
    assert what_is_missing(DiskListing(str(path)), TAGS) is None  # TensorFlow says why not


def test_an_output_that_is_an_input_is_answered(load, tmp_path):
    save_tf1(
        tmp_path / "1",
        lambda x, y: {
            "serving_default": ({"x": x}, {"a": y, "key": x, "z": y}),
            "nothing_else": ({"x": x}, {"key": x}),
        },
    )
    servable = load(tmp_path / "1")
    assert call(servable, x=X) == {
        "a": [2.5, 3.0, 4.5],
        "key": [1.0, 2.0, 5.0],
        "z": [2.5, 3.0, 4.5],
    }
    assert call(servable, "nothing_else", x=X) == {"key": [1.0, 2.0, 5.0]}


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("sparse", "a sparse tensor is not served"),
        ("resource", "resource"),
        ("of_the_future", "not a type of tensors"),
    ],
)
def test_an_output_that_cannot_be_served_costs_itself(load, tmp_path, output, reason):
    from tensorflow.core.protobuf import meta_graph_pb2

    sparse = meta_graph_pb2.TensorInfo.CooSparse(
        values_tensor_name="y:0", indices_tensor_name="y:0", dense_shape_tensor_name="y:0"
    )
    info = {
        "sparse": lambda: tensor_info("", coo_sparse=sparse),
        "resource": lambda: tensor_info("a:0", 20),
        "of_the_future": lambda: tensor_info("y:0", 99),
    }[output]()
    save_tf1(tmp_path / "1", lambda x, y: {"serving_default": ({"x": x}, {"y": y, "odd": info})})
    servable = load(tmp_path / "1")
    signature = servable.signatures["serving_default"]
    assert call(servable, x=X) == {"y": [2.5, 3.0, 4.5]}
    check_served(signature, ["x", "y"])  # as with an output_filter
    with pytest.raises(ServingError, match=reason) as refused:
        check_served(signature, signature.outputs)
    assert refused.value.code is Code.UNIMPLEMENTED


def test_a_signature_that_cannot_be_served_costs_itself(load, tmp_path):
    save_tf1(
        tmp_path / "1",
        lambda x, y: {
            "serving_default": ({"x": x}, {"y": y}),
            "nowhere": ({"x": x}, {"y": tensor_info("gone:0")}),
            "fed_twice": ({"x": x, "again": x}, {"y": y}),
            "handle": ({"x": x, "h": tensor_info("a:0", 20)}, {"y": y}),
        },
    )
    servable = load(tmp_path / "1")
    assert call(servable, x=X) == {"y": [2.5, 3.0, 4.5]}
    for name in ("nowhere", "fed_twice", "handle"):
        inputs = dict.fromkeys(servable.signatures[name].inputs, X)
        with pytest.raises(ServingError) as refused:
            call(servable, name, **inputs)
        assert refused.value.code in (
            Code.INVALID_ARGUMENT,
            Code.NOT_FOUND,
            Code.UNIMPLEMENTED,
        )


def test_a_meta_graph_is_read_from_text_too(tmp_path):
    path = tmp_path / "1"
    save_tf1(path, lambda x, y: {"serving_default": ({"x": x}, {"y": y})}, as_text=True)
    found = read_meta_graph(str(path), TAGS)
    assert found.signatures["serving_default"].inputs["x"].tensor_name == "x:0"
    (path / "saved_model.pbtxt").write_text("meta_graphs {")
    with pytest.raises(ServingError, match="does not parse") as refused:
        read_meta_graph(str(path), TAGS)
    assert refused.value.code is Code.DATA_LOSS
    assert not isinstance(refused.value, InvalidArgument)
