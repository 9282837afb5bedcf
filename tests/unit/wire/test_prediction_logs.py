"""PredictionLogs: put together from bytes, and taken apart again."""

from __future__ import annotations

import numpy as np
import pytest

from servingd.core.types import DataType, ModelSpec, ServableId, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire import protos
from servingd.wire.records.prediction_logs import (
    Provenance,
    examples_request,
    predict_request,
    prediction_log,
    recorded_request,
    regression_response,
)
from servingd.wire.tensors.encoding import encode_model_spec, encode_predict_response

M7 = ServableId("m", 7)
ORIGIN = Provenance(1_700_000_000, ("serve", "gpu"), 0.25, attributes=1, dc="x")
FLOATS = TensorSpec(DataType.FLOAT, (None,), "x:0")
SPEC = ModelSpec("m", label="stable")


def a_prediction(size: int = 3) -> tuple[bytes, bytes]:
    array = np.arange(size, dtype=np.float32)
    request = predict_request(SPEC, {"x": array}, {"x": FLOATS})
    tail = encode_model_spec("m", 7, "serving_default")
    return request, encode_predict_response({"y": array}, {"y": FLOATS}, tail)


def test_a_record_holds_request_and_response_as_they_were():
    request, response = a_prediction()
    log = protos.PredictionLog.FromString(
        prediction_log(M7, "predict_log", request, response, ORIGIN)
    )
    assert log.WhichOneof("log_type") == "predict_log"
    assert log.predict_log.request == protos.PredictRequest.FromString(request)
    assert log.predict_log.response == protos.PredictResponse.FromString(response)


def test_its_metadata_say_what_answered_when_and_of_how_many():
    log = protos.PredictionLog.FromString(
        prediction_log(M7, "predict_log", *a_prediction(), ORIGIN)
    )
    metadata = log.log_metadata
    spec = metadata.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 7, "serving_default")
    assert not spec.version_label, "the version is resolved"
    assert metadata.sampling_config.sampling_rate == 0.25
    assert metadata.sampling_config.attributes == 1
    assert list(metadata.saved_model_tags) == ["serve", "gpu"]
    assert (metadata.timestamp_secs, metadata.dc) == (1_700_000_000, "x")


@pytest.mark.parametrize("size", [0, 1, 20, 40_000, 1_000_000])
def test_records_of_every_size_parse(size):
    request, response = a_prediction(size)
    record = prediction_log(M7, "predict_log", request, response, ORIGIN)
    assert len(protos.PredictionLog.FromString(record).predict_log.request.inputs) == 1
    found = recorded_request(record)
    assert found is not None
    assert (found.kind, found.number) == ("predict_log", 6)
    again = protos.PredictRequest.FromString(found.content)
    assert again == protos.PredictRequest.FromString(request)


def test_examples_and_their_signature():
    request = examples_request(SPEC, [b"", b"\x0a\x00"])
    response = regression_response(
        np.array([1.0, 2.0], np.float32), encode_model_spec("m", 7, "regress")
    )
    record = prediction_log(M7, "regress_log", request, response, ORIGIN)
    log = protos.PredictionLog.FromString(record)
    assert log.log_metadata.model_spec.signature_name == "regress"
    assert len(log.regress_log.request.input.example_list.examples) == 2
    found = recorded_request(record)
    assert found is not None
    assert (found.kind, found.number) == ("regress_log", 3)


def test_several_signatures_of_one_call_have_none_in_the_metadata():
    response = protos.MultiInferenceResponse()
    response.results.add().model_spec.signature_name = "one"
    record = prediction_log(M7, "multi_inference_log", b"", response.SerializeToString(), ORIGIN)
    spec = protos.PredictionLog.FromString(record).log_metadata.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 7, "")


@pytest.mark.parametrize("response", [b"\xff\xff", b"\x08\x01", b"\x12\xff\xff\xff\xff\xff\xff"])
def test_a_response_that_is_none_of_ours_gets_metadata_nevertheless(response):
    record = prediction_log(M7, "predict_log", b"", response, ORIGIN)
    assert b"\x0a\x01m" in record[:60]


def test_a_record_without_a_kind_has_no_request():
    assert recorded_request(b"") is None
    assert (
        recorded_request(protos.PredictionLog(log_metadata={"dc": "x"}).SerializeToString()) is None
    )


def test_kinds_that_are_not_replayed_are_told_by_their_number():
    for kind, number in (("predict_streamed_log", 7), ("session_run_log", 5)):
        log = protos.PredictionLog()
        getattr(log, kind).SetInParent()
        found = recorded_request(log.SerializeToString())
        assert found is not None
        assert (found.kind, found.number) == (kind, number)


def test_what_is_no_record_does_not_parse():
    with pytest.raises(InvalidArgument, match=r"tensorflow\.serving\.PredictionLog"):
        recorded_request(b"\xff\xff\xff")
