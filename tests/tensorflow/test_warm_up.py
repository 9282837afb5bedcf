"""Inputs that are made up: they fit, they are not too large, and nothing remembers them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import DataType, ServableId, Signature, TensorSpec, VersionData
from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.saved_model.session.opening import open_plain
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.synthetic_inputs import has_open_rows, synthetic_inputs
from servingd.wire.tensors.types import numpy_dtype

pytestmark = pytest.mark.tf

EXPORTS = [
    "half_plus_two",
    "echo",
    "slow",
    "counter",
    "tf1_with_table",
    "keras_saved_plainly",
    "keras_exported",
]


def signature(**inputs: TensorSpec) -> Signature:
    return Signature("s", inputs, {"y": TensorSpec(DataType.FLOAT, None)})


def floats(*shape: int | None) -> TensorSpec:
    return TensorSpec(DataType.FLOAT, shape)


ANY_RANK = TensorSpec(DataType.FLOAT, None)


class Outcome:
    deadline = None

    def alive(self):
        return True

    def succeed(self, outputs):
        self.outputs = outputs

    def fail(self, error):
        raise error


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_made_up_inputs_fit_every_export_and_are_answered(models: Path, name: str, batch: int):
    meta_graph = read_meta_graph(str(models / name), ("serve",))
    safe_to_run = dict.fromkeys(meta_graph.signatures, True)
    session: RunningSession = open_plain(
        str(models / name), ("serve",), ONE_THREAD, meta_graph, safe_to_run
    )
    for each in meta_graph.signatures.values():
        inputs = synthetic_inputs(each, batch)
        assert inputs is not None
        assert list(inputs) == list(each.inputs), "in the signature's order: it is run by order"
        for alias, spec in each.inputs.items():
            array = inputs[alias]
            is_string = spec.data_type is DataType.STRING
            assert array.dtype == (object if is_string else numpy_dtype(spec.data_type))
            if spec.shape is not None:
                assert len(array.shape) == len(spec.shape)
                for size, wanted in zip(array.shape, spec.shape, strict=True):
                    assert wanted is None or size == wanted
        assert session.calls[each.name].run(inputs).keys() == each.outputs.keys()
    session.close()


def test_the_first_dimension_is_the_batch_and_others_are_one():
    inputs = synthetic_inputs(signature(a=floats(None, None, 3), b=floats(2, None)), 5)
    assert inputs is not None
    assert {alias: array.shape for alias, array in inputs.items()} == {"a": (5, 1, 3), "b": (2, 1)}


def test_an_unknown_rank_gets_a_vector_and_a_scalar_stays_one():
    inputs = synthetic_inputs(signature(a=ANY_RANK, b=floats()), 2)
    assert inputs is not None
    assert (inputs["a"].shape, inputs["b"].shape) == ((2,), ())


def test_what_would_be_huge_is_not_made():
    assert synthetic_inputs(signature(x=floats(1 << 12, 1 << 12)), 1) is None
    assert synthetic_inputs(signature(x=floats(None, 1 << 40)), 1) is None
    assert synthetic_inputs(signature(x=floats(1 << 62, 1 << 62)), 1) is None
    assert synthetic_inputs(signature(x=floats(0, 1 << 40)), 1) is not None


def test_values_are_small_and_the_same_for_the_same_seed():
    mixed = signature(
        f=floats(None, 100),
        i=TensorSpec(DataType.INT64, (None, 100)),
        s=TensorSpec(DataType.STRING, (None,)),
    )
    one, same, other = (synthetic_inputs(mixed, 2, seed) for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    assert 0 <= one["f"].min() < one["f"].max() < 1
    assert set(one["i"].ravel()) == {0, 1}
    assert one["s"].tolist() == [b"", b""]
    assert all(np.array_equal(one[alias], same[alias]) for alias in one)
    assert not np.array_equal(one["f"], other["f"])


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ({"a": floats(None, 3), "b": floats(None)}, True),
        ({"a": ANY_RANK}, True),
        ({"a": floats(None), "b": floats(1, 3)}, False),
        ({"a": floats()}, False),
        ({}, False),
    ],
)
def test_a_batch_may_vary_if_every_input_lets_it(inputs, wanted):
    assert has_open_rows(signature(**inputs)) is wanted


@pytest.mark.parametrize("optimize_models", ["off", "wait"])
def test_a_signature_that_keeps_state_is_not_run_before_its_first_call(models, optimize_models):
    platform = SavedModelPlatform(SavedModelOptions(optimize_models=optimize_models))
    loader = platform.loader(
        ServableId("counter", 1), VersionData(str(models / "counter"), "tensorflow")
    )
    servable = loader.load()
    outcome = Outcome()
    one = {"x": np.array(1.0, np.float32)}
    servable.run(servable.signatures["serving_default"], one, outcome)
    assert outcome.outputs["total"] == 1.0
    loader.unload(servable)
    platform.stop()
