"""ONNX models: when their files are whole, their signatures, and what a run gives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from servingd.core.types import CPU_0, DataType, Device, Placement, ServableId, VersionData
from servingd.errors import DataLoss, FailedPrecondition, InvalidArgument, ServingError
from servingd.servables.onnx import session
from servingd.servables.onnx.model_files import external_names, missing_data, parse_model
from servingd.servables.onnx.platform import OnnxPlatform, signature_of
from servingd.servables.registry import Platforms
from servingd.sources.listing import DiskListing
from servingd.testing.contract import Outcome, run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def made(nodes, inputs, outputs, constants=()) -> bytes:
    infos = [
        [helper.make_tensor_value_info(name, *spec) for name, spec in each.items()]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *infos, list(constants))
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def identity(dtype: int, dims=("N", 2)) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    return made([node], {"x": (dtype, dims)}, {"y": (dtype, dims)})


def load(tmp_path, model: bytes, placement=None, **options):
    (tmp_path / "model.onnx").write_bytes(model)
    data = VersionData(str(tmp_path), "onnx", options=options)
    loader = Platforms().loader(ServableId("m", 1), data)
    return loader.load(placement) if placement else loader.load()


# Files --------------------------------------------------------------------------------------------


def test_a_model_that_was_cut_off_anywhere_is_not_whole():
    model = identity(TensorProto.FLOAT)
    assert parse_model(model).graph.node[0].op_type == "Identity"
    for length in range(len(model)):
        with pytest.raises(DataLoss):
            parse_model(model[:length])


def test_a_folder_with_one_model_of_any_name_is_a_version(tmp_path):
    platform = OnnxPlatform()
    (tmp_path / "net.onnx").write_bytes(identity(TensorProto.FLOAT))
    assert platform.recognises(DiskListing(str(tmp_path)))
    assert platform.missing(DiskListing(str(tmp_path))) is None
    (tmp_path / "other.onnx").write_bytes(b"")
    assert "no model.onnx, nor another file" in platform.missing(DiskListing(str(tmp_path)))
    (tmp_path / "net.onnx").rename(tmp_path / "model.onnx")
    assert platform.missing(DiskListing(str(tmp_path))) is None


def with_data_at(location: str, **entries) -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    spec = (TensorProto.FLOAT, ["N", 3])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return made([node], {"x": spec}, {"y": spec}, [tensor])


@pytest.mark.parametrize(
    ("entries", "size", "reason"),
    [
        ({}, 12, None),
        ({}, 11, "a/w.bin has 11 bytes of 12"),
        ({"offset": 4}, 15, "a/w.bin has 15 bytes of 16"),
        ({"offset": 4, "length": 12}, 16, None),
        ({"offset": 4, "length": 13}, 16, "a/w.bin has 16 bytes of 17"),
    ],
)
def test_a_model_is_whole_when_its_tensors_are_there(entries, size, reason):
    model = parse_model(with_data_at("a/w.bin", **entries))
    assert missing_data(model, {"a/w.bin": size}) == reason
    assert missing_data(model, {}) == "a/w.bin is not there"
    assert external_names(model) == ["a/w.bin"]


@pytest.mark.parametrize("location", ["../w", "/etc/passwd", "", ".", "a/../../w", "..\\w"])
def test_tensors_outside_the_version_are_refused(location):
    with pytest.raises(InvalidArgument, match="no file of the version's folder"):
        external_names(parse_model(with_data_at(location)))


# Signatures and runs ------------------------------------------------------------------------------


def test_a_signature_has_the_graphs_names_types_and_shapes():
    constant = numpy_helper.from_array(np.ones(3, np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    inputs = {"x": (TensorProto.FLOAT, ["N", 0, -1, 3]), "w": (TensorProto.FLOAT, [3])}
    signature = signature_of(
        parse_model(made([node], inputs, {"y": (TensorProto.FLOAT, None)}, [constant]))
    )
    (x,) = signature.inputs.values()  # what has a value need not be given
    assert (x.data_type, x.shape) == (DataType.FLOAT, (None, None, None, 3))
    assert signature.outputs["y"].shape is None


VALUES = {
    TensorProto.FLOAT: np.array([[1.5, -2]], np.float32),
    TensorProto.DOUBLE: np.array([[1.5, -2]], np.float64),
    TensorProto.FLOAT16: np.array([[1.5, -2]], np.float16),
    TensorProto.BOOL: np.array([[True, False]]),
    TensorProto.INT8: np.array([[-1, 2]], np.int8),
    TensorProto.UINT8: np.array([[1, 255]], np.uint8),
    TensorProto.INT16: np.array([[-1, 2]], np.int16),
    TensorProto.UINT16: np.array([[1, 2]], np.uint16),
    TensorProto.INT32: np.array([[-1, 2]], np.int32),
    TensorProto.UINT32: np.array([[1, 2]], np.uint32),
    TensorProto.INT64: np.array([[-1, 2]], np.int64),
    TensorProto.UINT64: np.array([[1, 2]], np.uint64),
    TensorProto.STRING: np.array([["Käse".encode(), b""]], object),
}


@pytest.mark.parametrize("dtype", VALUES)
def test_every_type_goes_in_and_comes_out(tmp_path, dtype):
    servable = load(tmp_path, identity(dtype))
    signature = servable.signatures["serving_default"]
    found = run(servable, signature, {"x": VALUES[dtype]})["y"]
    assert found.dtype == VALUES[dtype].dtype
    np.testing.assert_array_equal(found, VALUES[dtype])


def test_inputs_may_lie_anywhere_and_be_read_only(tmp_path):
    servable = load(tmp_path, identity(TensorProto.FLOAT))
    lying = np.frombuffer(b"\0" + np.arange(4, dtype=np.float32).tobytes(), np.float32, 4, 1)
    inputs = {"x": lying.reshape(2, 2).T}
    found = run(servable, servable.signatures["serving_default"], inputs)["y"]
    assert found.tolist() == [[0, 2], [1, 3]]


def test_an_output_filter_gets_what_it_wants_alone(tmp_path):
    spec = (TensorProto.FLOAT, ["N"])
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    servable = load(tmp_path, made(nodes, {"x": spec}, {"y": spec, "z": spec}))
    outcome = Outcome()
    outcome.output_filter = ("z",)
    signature = servable.signatures["serving_default"]
    servable.run(signature, {"x": np.array([1, -1], np.float32)}, outcome)
    ((name, values),) = outcome.answers[0].items()
    assert (name, values.tolist()) == ("z", [-1, 1])


def test_an_error_of_a_run_is_the_callers_and_says_what_failed(tmp_path):
    spec = (TensorProto.FLOAT, ["N"])
    seven = numpy_helper.from_array(np.array([7], np.int64), "seven")
    node = helper.make_node("Reshape", ["x", "seven"], ["y"])
    servable = load(tmp_path, made([node], {"x": spec}, {"y": spec}, [seven]))
    signature = servable.signatures["serving_default"]
    with pytest.raises(InvalidArgument) as caught:
        servable.run(signature, {"x": np.array([1, -1], np.float32)}, Outcome())
    assert "running Reshape node" in caught.value.message
    assert "onnxruntime" not in caught.value.message


def test_strings_that_are_no_utf8_are_refused(tmp_path):
    servable = load(tmp_path, identity(TensorProto.STRING))
    inputs = {"x": np.array([[b"\xff", b""]], object)}
    with pytest.raises(InvalidArgument, match="input x: strings of ONNX models are UTF-8"):
        servable.run(servable.signatures["serving_default"], inputs, Outcome())


# Loading ------------------------------------------------------------------------------------------


def test_calls_are_merged_where_the_graph_allows_it_and_the_options_do_not_forbid_it(tmp_path):
    spec = (TensorProto.FLOAT, ["N", 3])
    total = made([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"x": spec}, {"y": spec})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    servable = load(tmp_path / "a", identity(TensorProto.FLOAT))
    assert servable.rows_worth_merging("serving_default") >= 1
    assert servable.why_not_merged("serving_default") == ""
    servable = load(tmp_path / "a", identity(TensorProto.FLOAT), merging="never")
    assert servable.rows_worth_merging("serving_default") == 0
    servable = load(tmp_path / "b", total)
    assert servable.rows_worth_merging("serving_default") == 0
    assert servable.why_not_merged("serving_default") == "y (Softmax): it works along the rows"


def test_a_trial_refuses_what_an_analysis_passed_wrongly(tmp_path, monkeypatch):
    spec = (TensorProto.FLOAT, ["N", 3])
    total = made([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"x": spec}, {"y": spec})
    monkeypatch.setattr("servingd.servables.onnx.platform.why_not_row_wise", lambda model: "")
    servable = load(tmp_path, total)
    assert servable.rows_worth_merging("serving_default") == 0
    assert "a trial: output y" in servable.why_not_merged("serving_default")


def test_each_planned_device_has_a_session_and_a_gpu_that_cannot_be_used_is_told(tmp_path, caplog):
    two = Placement((CPU_0, Device("GPU", 0)))
    servable = load(tmp_path, identity(TensorProto.FLOAT), two, threads=2)
    assert len(servable._sessions) == 2
    assert "cannot use GPU:0: the CPU computes" in caplog.text
    cuda = session._providers(["CUDAExecutionProvider"], Device("GPU", 1))
    assert cuda[0] == ("CUDAExecutionProvider", {"device_id": 1})


@pytest.mark.parametrize("providers", [["CPUExecutionProvider"], ["CUDAExecutionProvider"]])
def test_a_model_is_placed_where_onnx_runtime_can_use_gpus(tmp_path, monkeypatch, providers):
    import onnxruntime

    (tmp_path / "model.onnx").write_bytes(identity(TensorProto.FLOAT))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    data = VersionData(str(tmp_path), "onnx")
    found = Platforms().loader(ServableId("m", 1), data).estimate()
    assert found.on_devices == ("CUDA" in providers[0])
    assert 0 < found.steady.replica < found.peak.replica + 1
    assert found.steady.on_accelerator > 64 << 20


def test_a_graph_that_onnx_runtime_refuses_is_an_error_of_the_load(tmp_path):
    spec = (TensorProto.FLOAT, ["N"])
    model = made([helper.make_node("NoSuchThing", ["x"], ["y"])], {"x": spec}, {"y": spec})
    with pytest.raises(ServingError, match="NoSuchThing"):
        load(tmp_path, model)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threads": "two"}, "threads: expected `?int"),
        ({"threads": 0}, "threads: expected 1 or more, got 0"),
        ({"thread": 1}, "platform_options.thread: expected one of merging, threads"),
    ],
)
def test_options_that_are_wrong_are_told(tmp_path, options, text):
    with pytest.raises(InvalidArgument, match=text):
        load(tmp_path, identity(TensorProto.FLOAT), **options)


def test_without_onnx_runtime_a_load_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(
        OnnxPlatform, "needs", {"no_such_module": OnnxPlatform.needs["onnxruntime"]}
    )
    with pytest.raises(FailedPrecondition, match=r"pip install 'servingd\[onnx\]'"):
        load(tmp_path, identity(TensorProto.FLOAT))


def test_nothing_is_imported_for_it_before_a_load():
    program = """
import sys
from servingd.servables.registry import Platforms
Platforms()["onnx"]
print([m for m in ("onnx", "onnxruntime", "tensorflow") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
