"""Recorded requests run as real calls do, on the one servable that there is."""

from __future__ import annotations

import numpy as np
import pytest

from servingd.core.types import DataType, ModelSpec, Signature, TensorSpec
from servingd.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ServingError,
    Unavailable,
    Unimplemented,
)
from servingd.inference.checks import PREDICT_METHOD, Checks
from servingd.inference.replay import replay
from servingd.wire import protos
from servingd.wire.records.prediction_logs import RecordedRequest, examples_request, predict_request

FLOATS = TensorSpec(DataType.FLOAT, (None,), "x:0")
STRINGS = TensorSpec(DataType.STRING, (None,), "e:0")
SPEC = ModelSpec("any", 99)
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class Model:
    """Remembers what it was run with; answers what it was told to."""

    def __init__(self, **answers):
        self.signatures = {
            "serving_default": Signature("serving_default", {"x": FLOATS}, {"y": FLOATS}),
            "regress": Signature("regress", {"inputs": STRINGS}, {"outputs": FLOATS}, REGRESS),
            "classify": Signature(
                "classify",
                {"inputs": STRINGS},
                {"scores": TensorSpec(DataType.FLOAT, (None, None), "s:0")},
                CLASSIFY,
            ),
        }
        self.metadata = self.signatures
        self.answers = answers
        self.runs = []

    def run(self, signature, inputs, done):
        self.runs.append((signature.name, inputs))
        assert done.alive()
        assert done.deadline is not None
        answer = self.answers.get(signature.name, self.right(signature.name, inputs))
        if isinstance(answer, ServingError):
            done.fail(answer)
        else:
            done.succeed(answer)

    def right(self, name, inputs):
        (array,) = inputs.values()
        match name:
            case "regress":
                return {"outputs": np.zeros(len(array), np.float32)}
            case "classify":
                return {"scores": np.zeros((len(array), 2), np.float32)}
            case _:
                return {"y": array}

    def close(self):
        pass


def recorded(kind: str, content: bytes) -> RecordedRequest:
    number = protos.PredictionLog.DESCRIPTOR.fields_by_name[kind].number
    return RecordedRequest(kind, number, content)


def prediction(signature: str = "", spec: TensorSpec = FLOATS, alias: str = "x", **fields):
    inputs = {alias: np.array([1, 2])}
    content = predict_request(SPEC._replace(signature_name=signature), inputs, {alias: spec})
    return recorded("predict_log", content + protos.PredictRequest(**fields).SerializeToString())


def of_examples(kind: str, *examples: bytes, signature: str = ""):
    content = examples_request(SPEC._replace(signature_name=signature), examples)
    return recorded(kind, content)


def multi(*tasks: tuple[str, str], name: str = "any"):
    request = protos.MultiExamplesRequest()
    for signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    source = protos.SerializedInput()
    source.example_list_with_context.examples.extend([b"b", b"c"])
    source.example_list_with_context.context = b"a"
    request.input = source.SerializeToString()
    return recorded("multi_inference_log", request.SerializeToString())


def test_a_prediction_runs_with_its_inputs_whatever_model_and_version_it_names():
    model = Model()
    replay(model, prediction())
    ((name, inputs),) = model.runs
    assert name == "serving_default"
    assert inputs["x"].tolist() == [1.0, 2.0]
    assert inputs["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        (prediction("none"), FailedPrecondition, 'Serving signature key "none" not found.'),
        (
            prediction(spec=TensorSpec(DataType.INT32, None)),
            InvalidArgument,
            "Expects arg[0] to be float but int32 is provided",
        ),
        (prediction(alias="z"), InvalidArgument, "Signature input alias: x(feed name: x:0)"),
        (
            prediction(output_filter=["z"]),
            InvalidArgument,
            "output tensor alias not found in signature: z",
        ),
        (
            of_examples("classify_log", b"", signature="none"),
            InvalidArgument,
            "No signature was found with the name: none",
        ),
        (of_examples("regress_log", signature="regress"), InvalidArgument, "Input is empty."),
        (
            of_examples("regress_log", b"", signature="classify"),
            InvalidArgument,
            "No regression outputs found",
        ),
        (multi(("none", CLASSIFY)), InvalidArgument, "Requested signature not found"),
        (multi(("regress", "other")), Unimplemented, "Unsupported signature method_name: other"),
        (recorded("session_run_log", b""), Unimplemented, "Unsupported log_type for warmup: 5"),
        (
            recorded("predict_streamed_log", b""),
            Unimplemented,
            "Unsupported log_type for warmup: 7",
        ),
    ],
)
def test_it_is_checked_as_a_real_call_is(request_, kind, message):
    model = Model()
    with pytest.raises(kind) as caught:
        replay(model, request_)
    assert caught.value.message.startswith(message)
    assert model.runs == []


def test_examples_reach_their_signatures():
    model = Model()
    replay(model, of_examples("classify_log", b"a", b"b", signature="classify"))
    replay(model, of_examples("regress_log", b"c", signature="regress"))
    replay(model, multi(("classify", CLASSIFY), ("regress", REGRESS)))
    assert [(name, inputs["inputs"].tolist()) for name, inputs in model.runs] == [
        ("classify", [b"a", b"b"]),
        ("regress", [b"c"]),
        ("classify", [b"ab", b"ac"]),
        ("regress", [b"ab", b"ac"]),
    ]


def test_the_method_name_is_checked_where_that_is_asked_for():
    model = Model()
    replay(model, of_examples("classify_log", b"", signature="classify"), Checks(method_name=True))
    regress = model.signatures["classify"]
    model.signatures["classify"] = Signature("classify", regress.inputs, regress.outputs, REGRESS)
    replay(model, of_examples("classify_log", b"", signature="classify"))
    with pytest.raises(InvalidArgument, match="Expected classification signature method_name"):
        replay(
            model, of_examples("classify_log", b"", signature="classify"), Checks(method_name=True)
        )


CALLS = {
    "serving_default": prediction(),
    "classify": of_examples("classify_log", b"a", signature="classify"),
    "regress": multi(("regress", REGRESS)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_servables_failure_is_the_requests(name):
    with pytest.raises(Unavailable, match=r"^closed$"):
        replay(Model(**{name: Unavailable("closed")}), CALLS[name])


@pytest.mark.parametrize("name", ["classify", "regress"])
def test_an_answer_that_is_none_is_a_failure(name):
    wrong = {"scores": np.zeros((7, 2), np.float32), "outputs": np.zeros(7, np.float32)}
    with pytest.raises(InvalidArgument, match="batch size"):
        replay(Model(**{name: wrong}), CALLS[name])


def test_a_prediction_that_cannot_be_written_is_a_failure():
    with pytest.raises((InvalidArgument, Internal)):
        replay(
            Model(serving_default={"y": np.array(["no number"], object)}), CALLS["serving_default"]
        )


@pytest.mark.parametrize("method", [PREDICT_METHOD, CLASSIFY, REGRESS, ""])
def test_predict_takes_three_methods_where_they_are_checked(method):
    model = Model()
    plain = model.signatures["serving_default"]
    model.signatures["serving_default"] = Signature(plain.name, plain.inputs, plain.outputs, method)
    replay(model, prediction())
    if method:
        replay(model, prediction(), Checks(method_name=True))
        return
    with pytest.raises(Internal, match="Expected prediction signature method_name to be one of"):
        replay(model, prediction(), Checks(method_name=True))
