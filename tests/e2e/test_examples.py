"""Classify, Regress and MultiInference with the official stubs, on both transports."""

from __future__ import annotations

import grpc
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(x=None, word=None):
    import tensorflow as tf

    made = tf.train.Example()
    if x is not None:
        made.features.feature["x"].float_list.value.append(x)
    if word is not None:
        made.features.feature["word"].bytes_list.value.append(word)
    return made


def listed(*examples):
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples))


def with_context(context, *examples):
    both = input_pb2.ExampleListWithContext(context=context, examples=examples)
    return input_pb2.Input(example_list_with_context=both)


def classification(given, signature="classify", model="examples"):
    ask = classification_pb2.ClassificationRequest(input=given)
    ask.model_spec.name, ask.model_spec.signature_name = model, signature
    return ask


def regression(given, signature="", model="examples"):
    ask = regression_pb2.RegressionRequest(input=given)
    ask.model_spec.name, ask.model_spec.signature_name = model, signature
    return ask


def multi(given, *tasks):
    ask = inference_pb2.MultiInferenceRequest(input=given)
    for name, signature, method in tasks:
        task = ask.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    return ask


def classes(result):
    return [[(c.label, c.score) for c in one.classes] for one in result.classifications]


def values(result):
    return [r.value for r in result.regressions]


def refusal(call, ask):
    with pytest.raises(grpc.RpcError) as failure:
        call(ask, timeout=10)
    return failure.value.code().name, failure.value.details()


def test_classify_gives_labels_and_scores(server):
    answer = server.prediction.Classify(classification(listed(example(2.0, b"cat"), example())))
    assert classes(answer.result) == [
        [("cat", 3.0), ("other", -3.0)],
        [("none", 2.0), ("other", -2.0)],
    ]
    assert answer.model_spec.name == "examples"
    assert answer.model_spec.version.value == 1
    assert answer.model_spec.signature_name == "classify"
    assert not answer.model_spec.version_label


def test_a_model_may_have_scores_or_labels_alone(server):
    given = listed(example(2.0, b"cat"))
    scores = server.prediction.Classify(classification(given, "scores"))
    assert classes(scores.result) == [[("", 3.0), ("", -3.0)]]
    labels = server.prediction.Classify(classification(given, "classes"))
    assert classes(labels.result) == [[("cat", 0.0), ("other", 0.0)]]


@pytest.mark.parametrize("signature", ["", "flat"])
def test_regress_takes_either_shape(server, signature):
    answer = server.prediction.Regress(regression(listed(example(2.0), example(4.0)), signature))
    assert values(answer.result) == [3.0, 4.0]
    assert answer.model_spec.signature_name == (signature or "serving_default")


def test_an_examples_own_features_win_over_the_contexts(server):
    given = with_context(example(8.0, b"context"), example(2.0), example())
    assert values(server.prediction.Regress(regression(given)).result) == [3.0, 6.0]
    answer = server.prediction.Classify(classification(given))
    assert [row[0][0] for row in classes(answer.result)] == ["context", "context"]


def test_multi_inference_answers_every_task_in_order(server):
    ask = multi(
        listed(example(2.0, b"cat"), example(4.0, b"dog")),
        ("examples", "", REGRESS),
        ("examples", "classify", CLASSIFY),
    )
    first, second = server.prediction.MultiInference(ask).results
    assert values(first.regression_result) == [3.0, 4.0]
    assert [row[0] for row in classes(second.classification_result)] == [("cat", 3.0), ("dog", 4.0)]
    assert first.model_spec.signature_name == "serving_default"
    assert (second.model_spec.name, second.model_spec.version.value) == ("examples", 1)
    assert server.metric(':tensorflow:serving:request_example_count_total{model="examples"}') >= 2


ONE = listed(example(1.0))

WRONG_CLASSIFICATIONS = {
    "no spec": (classification_pb2.ClassificationRequest(input=ONE), "Missing ModelSpec"),
    "no input": (classification(input_pb2.Input()), "Input is empty."),
    "no examples": (classification(listed()), "Input is empty."),
    "context alone": (classification(with_context(example(1.0))), "Input is empty."),
    "no signature": (
        classification(ONE, "nothing"),
        "No signature was found with the name: nothing",
    ),
    "no classes": (
        classification(ONE, "serving_default"),
        'Expected classification signature outputs to contain at least one of "classes" or '
        '"scores". Signature was: ',
    ),
    "a vector of scores": (
        classification(ONE, "flat_scores"),
        "Expected Tensor shape: [batch_size num_classes] but got [1]",
    ),
    "other names": (
        classification(ONE, "other_names"),
        "No classification inputs found in SignatureDef: ",
    ),
}


@pytest.mark.parametrize("case", WRONG_CLASSIFICATIONS)
def test_a_wrong_classification_is_told_what_is_wrong(server, case):
    ask, text = WRONG_CLASSIFICATIONS[case]
    code, details = refusal(server.prediction.Classify, ask)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith(text)


WRONG_REGRESSIONS = {
    "no spec": (regression_pb2.RegressionRequest(input=ONE), "Missing ModelSpec"),
    "no examples": (regression(listed()), "Input is empty."),
    "no signature": (regression(ONE, "nothing"), "No signature was found with the name: nothing"),
    "two outputs": (regression(ONE, "classify"), "Expected one output Tensor."),
    "no outputs": (regression(ONE, "scores"), "No regression outputs found in SignatureDef: "),
    "other names": (regression(ONE, "other_names"), "No regression inputs found in SignatureDef: "),
    "two values": (
        regression(ONE, "two_values"),
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
    ),
    "doubles": (
        regression(ONE, "doubles"),
        "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
    ),
    "one answer for two": (
        regression(listed(example(1.0), example(2.0)), "one_answer"),
        "Input batch size did not match output batch size: 2 vs. 1",
    ),
    "a model of floats": (
        regression(ONE, "floats"),
        "Expects arg[0] to be float but string is provided",
    ),
}


@pytest.mark.parametrize("case", WRONG_REGRESSIONS)
def test_a_wrong_regression_is_told_what_is_wrong(server, case):
    ask, text = WRONG_REGRESSIONS[case]
    code, details = refusal(server.prediction.Regress, ask)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith(text)


TASK = ("examples", "", REGRESS)
WRONG_TASKS = {
    "no tasks": ((), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "an empty name": (
        (TASK, ("", "flat", REGRESS)),
        "INVALID_ARGUMENT",
        "Found ModelSpec with an empty model name.",
    ),
    "two models": (
        (TASK, ("half_plus_two", "flat", REGRESS)),
        "INVALID_ARGUMENT",
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    "a signature twice": (
        (TASK, ("examples", "serving_default", REGRESS)),
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: serving_default",
    ),
    "no signature": (
        (("examples", "nothing", REGRESS),),
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: nothing",
    ),
    "predict": (
        (("examples", "flat", "tensorflow/serving/predict"),),
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
    "no such model": (
        (("nobody", "", REGRESS),),
        "NOT_FOUND",
        "Servable not found for request: Latest(nobody)",
    ),
    "one of two fails": (
        (TASK, ("examples", "two_values", REGRESS)),
        "INVALID_ARGUMENT",
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
    ),
}


@pytest.mark.parametrize("case", WRONG_TASKS)
def test_a_wrong_multi_inference_is_told_what_is_wrong(server, case):
    tasks, code, text = WRONG_TASKS[case]
    assert refusal(server.prediction.MultiInference, multi(ONE, *tasks)) == (code, text)


def test_a_multi_inference_without_examples_is_empty(server):
    found = refusal(server.prediction.MultiInference, multi(listed(), TASK))
    assert found == ("INVALID_ARGUMENT", "Input is empty.")


def test_bytes_that_are_no_input_are_the_callers_fault(server):
    for method, signature in (("Classify", "classify"), ("Regress", "flat")):
        spec = classification(ONE, signature).model_spec.SerializeToString()
        payload = b"\x0a" + bytes([len(spec)]) + spec + b"\x12\x03\x0a\x7f\x01"
        call = server.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        code, details = refusal(call, payload)
        assert code == "INVALID_ARGUMENT"
        assert details.startswith("Error parsing serialized input")


def test_examples_that_do_not_parse_fail_in_the_graph(server):
    spec = classification(ONE).model_spec.SerializeToString()
    given = b"\x0a\x04\x0a\x02\xff\xff"  # one example of two bytes
    payload = b"\x0a" + bytes([len(spec)]) + spec + b"\x12" + bytes([len(given)]) + given
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
    code, details = refusal(call, payload)
    assert code == "INVALID_ARGUMENT"
    assert "Could not parse example input" in details
