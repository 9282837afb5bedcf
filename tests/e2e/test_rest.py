"""The REST API on the wire: every route, exact answers, headers, both encodings."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil

import numpy as np
import pytest
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from tests.e2e.process import Process, request, to_array

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

HALF = "/v1/models/half_plus_two:predict"


@pytest.fixture(scope="module")
def server(repository, graphs, tmp_path_factory):
    """A server with everything about REST switched on."""
    folder = tmp_path_factory.mktemp("rest")
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    process = Process(
        folder / "server.log",
        f"--model_repository={repository}",
        f"--monitoring_config_file={monitoring}",
        "--rest_api_enable_cors_support",
        SERVINGD_CACHE_DIR=graphs,
    )
    try:
        process.wait_until_ready()
        yield process
        assert process.terminate() == 0, process.tail()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


def call(server, method, path, body=None, **headers):
    """Status, headers by lower-case name, and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read()
    finally:
        connection.close()


def post(server, path, document, **headers):
    body = document if isinstance(document, (bytes, str)) else json.dumps(document)
    status, found, answer = call(server, "POST", path, body, **headers)
    assert found["content-type"] == "application/json"
    return status, answer.decode()


def error(text):
    return f'{{\n    "error": {json.dumps(text)}\n}}'


def test_rows_and_columns_look_as_they_always_did(server):
    rows = '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    columns = '{\n    "outputs": [\n        2.5,\n        3.0,\n        4.5\n    ]\n}'
    assert post(server, HALF, {"instances": [1.0, 2.0, 5.0]}) == (200, rows)
    assert post(server, HALF, {"inputs": [1, 2, 5]}) == (200, columns)
    assert post(server, HALF, {"instances": [{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]}) == (200, rows)
    assert post(server, HALF, {"inputs": {"x": [1, 2, 5]}}) == (200, columns)
    for path in ("versions/1", "versions/0001"):
        found = post(server, f"/v1/models/half_plus_two/{path}:predict", {"instances": [1, 2, 5]})
        assert found == (200, rows)
    decoded = "/V1/Models/%68alf_plus_two:predict"
    assert post(server, decoded, {"instances": [1, 2, 5]}) == (200, rows)


def test_several_outputs_are_named(server):
    document = {"signature_name": "serving_default", "inputs": {"x": [[1, 2, 3]], "z": [4]}}
    status, body = post(server, "/v1/models/echo:predict", document)
    assert status == 200
    assert json.loads(body) == {"outputs": {"sum": 10.0, "x": [[1.0, 2.0, 3.0]]}}


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("float32", [0.1, -3e-5, 16777216.0, 1e30]),
        ("float64", [0.1, 1e300, -0.0]),
        ("int8", [-128, 127]),
        ("int16", [-(2**15)]),
        ("int32", [2**31 - 1]),
        ("int64", [2**63 - 1, -(2**63)]),
        ("uint8", [255]),
        ("uint32", [2**32 - 1]),
        ("uint64", [2**64 - 1]),
        ("bool", [True, False]),
        ("string", ["a", 'quo"te', "ü", ""]),
    ],
)
def test_values_come_back_as_they_were(server, signature, values):
    document = {"signature_name": signature, "inputs": values}
    status, body = post(server, "/v1/models/echo:predict", document)
    assert (status, json.loads(body)) == (200, {"outputs": values})


def test_numbers_that_json_lacks_travel_bare(server):
    body = '{"signature_name": "float32", "instances": [NaN, Infinity, -Inf]}'
    status, answer = post(server, "/v1/models/echo:predict", body)
    assert (status, answer) == (200, '{\n    "predictions": [NaN, Infinity, -Infinity\n    ]\n}')


def test_large_bodies_are_read_elsewhere(server):
    x = np.linspace(-1e3, 1e3, 200_000, dtype=np.float32)
    status, answer = post(server, HALF, {"instances": x.tolist()})
    assert status == 200
    assert np.array_equal(np.float32(json.loads(answer)["predictions"]), x * np.float32(0.5) + 2)


ERRORS = {
    "no JSON": (HALF, "{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
    "nothing": (HALF, "", 400, "JSON Parse error: The document is empty"),
    "broken and unknown": (
        "/v1/models/nobody:predict",
        "[",
        400,
        "JSON Parse error: Invalid value. at offset: 1",
    ),
    "no object": (HALF, "[1]", 400, "JSON Value: [1] Is not object"),
    "no instances": (HALF, "{}", 400, "Missing 'inputs' or 'instances' key"),
    "unknown model": (
        "/v1/models/nobody:predict",
        '{"instances": [1]}',
        404,
        "Servable not found for request: Latest(nobody)",
    ),
    "unknown version": (
        "/v1/models/half_plus_two/versions/9:predict",
        '{"instances": [1]}',
        404,
        "Servable not found for request: Specific(half_plus_two, 9)",
    ),
    "unknown label": (
        "/v1/models/half_plus_two/labels/stable:predict",
        '{"instances": [1]}',
        400,
        "Unrecognized servable version label: stable",
    ),
    "unknown signature": (
        HALF,
        '{"signature_name": "s", "instances": [1]}',
        400,
        'Serving signature name: "s" not found in signature def',
    ),
    "a wrong type": (
        HALF,
        '{"instances": ["a"]}',
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "
        '"a" Type: String is not of expected type: float',
    ),
    "a type that JSON lacks": (
        "/v1/models/echo:predict",
        '{"signature_name": "uint16", "inputs": [1]}',
        501,
        "Conversion of JSON Value: 1 to type: uint16",
    ),
    "no examples": (
        "/v1/models/examples:regress",
        "{}",
        400,
        "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
    ),
    "a query": (
        f"{HALF}?x=1",
        "{}",
        400,
        f"Malformed request: POST {HALF}?x=1",
    ),
    "another case": (
        "/v1/models/half_plus_two:PREDICT",
        "{}",
        400,
        "Malformed request: POST /v1/models/half_plus_two:PREDICT",
    ),
    "a slash too many": (f"{HALF}/", "{}", 400, f"Malformed request: POST {HALF}/"),
    "version and label": (
        "/v1/models/m/versions/1/labels/a:predict",
        "{}",
        400,
        "Malformed request: POST /v1/models/m/versions/1/labels/a:predict",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_wrong_request_is_told_what_is_wrong(server, case):
    path, body, status, text = ERRORS[case]
    assert post(server, path, body) == (status, error(text))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "GET"])
def test_a_wrong_verb_is_malformed(server, method):
    status, _, body = call(server, method, HALF)
    assert status == 400
    assert body.decode() == error(f"Malformed request: {method} {HALF}")
    assert call(server, "HEAD", HALF)[::2] == (400, b"")


def test_classify_and_regress(server):
    document = {"context": {"word": "cat"}, "examples": [{"x": 2.0}, {"x": [4.0], "word": "dog"}]}
    found = post(server, "/v1/models/examples:classify", {**document, "signature_name": "classify"})
    assert found == (
        200,
        '{\n    "results": [[["cat", 3.0], ["other", -3.0]], [["dog", 4.0], ["other", -4.0]]\n'
        "    ]\n}",
    )
    found = post(server, "/v1/models/examples/versions/1:regress", document)
    assert found == (200, '{\n    "results": [3.0, 4.0]\n}')


def test_status_of_a_model_and_of_all(server):
    entry = (
        '{\n "model_version_status": [\n  {\n   "version": "1",\n   "state": "AVAILABLE",\n'
        '   "status": {\n    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    )
    for path in ("", "/versions/1", "/labels/whatever", "/METADATA"):
        status, headers, body = call(server, "GET", f"/v1/models/half_plus_two{path}")
        assert (status, body.decode()) == (200, entry)
        assert headers["content-type"] == "application/json"
    status, _, body = call(server, "GET", "/v1/models/half_plus_two/versions/7")
    text = "Could not find version 7 of model half_plus_two"
    assert (status, body.decode()) == (404, error(text))
    status, _, body = call(server, "GET", "/v1/models/no?x=1")
    assert (status, body.decode()) == (404, error("Could not find any versions of model no?x=1"))
    models = json.loads(call(server, "GET", "/v1/models")[2])
    assert {*models["models"]} >= {"half_plus_two", "examples", "digit_names"}
    (half,) = (m for m in models["data"] if m["id"] == "half_plus_two")
    assert half["ready"]
    assert json.loads(entry)["model_version_status"] == half["versions"]
    status, _, body = call(server, "GET", "/v1/models/versions/1")
    assert (status, body.decode()) == (400, error("Missing model name in request."))


def test_a_version_that_is_no_number_of_64_bits_has_no_document(server):
    path = "/v1/models/half_plus_two/versions/99999999999999999999"
    assert call(server, "GET", path)[::2] == (400, b"")


def test_metadata_is_protobufs_json(server):
    status, _, body = call(server, "GET", "/v1/models/half_plus_two/metadata")
    document = json.loads(body)
    assert status == 200
    assert document["model_spec"] == {
        "name": "half_plus_two",
        "signature_name": "",
        "version": "1",
    }
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "__saved_model_init_op"}
    assert signatures["serving_default"]["inputs"]["x"] == {
        "name": "serving_default_x:0",
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }
    assert signatures["serving_default"]["defaults"] == {}


def test_cors(server):
    wanted = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST, GET",
        "access-control-allow-headers": "Content-Type",
    }
    for status, headers, _ in (
        call(server, "POST", HALF, b'{"instances": [1]}'),
        call(server, "GET", "/v1/models/half_plus_two"),
        call(server, "OPTIONS", "/v1/whatever", origin="https://example.org"),
    ):
        assert status == 200
        assert {n: headers.get(n) for n in wanted} == wanted
    assert call(server, "OPTIONS", "/v1/whatever")[::2] == (400, b"")
    assert "access-control-allow-origin" not in call(server, "GET", "/metrics")[1]


def test_gzip_both_ways(server):
    body = gzip.compress(b'{"instances": [1.0, 2.0]}')
    for coding in ("gzip", "my_gzip"):
        status, _, answer = call(server, "POST", HALF, body, Content_Encoding=coding)
        assert (status, json.loads(answer)) == (200, {"predictions": [2.5, 3.0]})
    many = json.dumps({"instances": [1.0] * 5000})
    status, headers, answer = call(server, "POST", HALF, many, Accept_Encoding="gzip, br")
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "accept-encoding"
    assert json.loads(gzip.decompress(answer)) == {"predictions": [2.5] * 5000}
    status, headers, _ = call(server, "POST", HALF, many, Accept_Encoding="gzip;q=0")
    assert "content-encoding" not in headers
    for bad in (b"no gzip", body[:-5]):
        status, _, answer = call(server, "POST", HALF, bad, Content_Encoding="gzip")
        assert status == 400
        assert b"gzip" in answer


def test_a_bomb_is_refused_and_the_server_goes_on(server):
    bomb = gzip.compress(bytes(200 << 20))
    status, _, answer = call(server, "POST", HALF, bomb, Content_Encoding="gzip")
    assert status == 413
    assert b"inflates to more than" in answer
    assert post(server, HALF, {"instances": [1.0]})[0] == 200


PROTOBUF = {"Content_Type": "application/x-protobuf"}


def test_bodies_may_be_the_messages_of_grpc(server):
    ask = request("half_plus_two", {"x": np.float32([1, 2])})
    for name in ("half_plus_two", ""):
        ask.model_spec.name = name
        status, headers, body = call(server, "POST", HALF, ask.SerializeToString(), **PROTOBUF)
        assert (status, headers["content-type"]) == (200, "application/x-protobuf")
        answer = predict_pb2.PredictResponse.FromString(body)
        assert to_array(answer.outputs["y"]).tolist() == [2.5, 3.0]
        assert answer.model_spec.version.value == 1
    examples = regression_pb2.RegressionRequest()
    example = examples.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(2.0)
    path, body = "/v1/models/examples:regress", examples.SerializeToString()
    answer = regression_pb2.RegressionResponse.FromString(
        call(server, "POST", path, body, **PROTOBUF)[2]
    )
    assert [r.value for r in answer.result.regressions] == [3.0]
    examples.model_spec.signature_name = "classify"
    path, body = "/v1/models/examples:classify", examples.SerializeToString()
    found = classification_pb2.ClassificationResponse.FromString(
        call(server, "POST", path, body, **PROTOBUF)[2]
    )
    assert found.result.classifications[0].classes[0].score == 3.0


def test_a_message_that_contradicts_its_url_is_refused(server):
    ask = request("echo", {"x": np.float32([1, 2])})
    status, _, body = call(server, "POST", HALF, ask.SerializeToString(), **PROTOBUF)
    assert status == 400
    assert "model_spec.name: expected 'half_plus_two'" in body.decode()
    ask = request("half_plus_two", {"x": np.float32([1, 2])}, version=2)
    path = "/v1/models/half_plus_two/versions/1:predict"
    status, _, body = call(server, "POST", path, ask.SerializeToString(), **PROTOBUF)
    assert status == 400
    status, _, body = call(server, "POST", HALF, b"\xff\xff", **PROTOBUF)
    assert status == 400
    assert "does not parse as tensorflow.serving.PredictRequest" in body.decode()


@pytest.mark.parametrize("path", ["/metrics", "/monitoring/prometheus/metrics"])
def test_metrics_are_compressed_for_who_likes_it(server, path):
    _, headers, packed = call(server, "GET", path, accept_encoding="gzip")
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "accept-encoding")
    text = gzip.decompress(packed)
    assert b"\nprocess_cpu_seconds_total " in text or path != "/metrics"
    assert b":tensorflow:serving:request_count" in text
    assert len(packed) < len(text) / 4
    assert "content-encoding" not in call(server, "GET", path)[1]


def test_the_monitoring_path_has_tensorflow_servings_page(server):
    path = "/monitoring/prometheus/metrics"
    post(server, HALF, {"instances": [1.0]})
    status, headers, body = call(server, "GET", path)
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    text = body.decode()
    assert ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}' in text
    latency = ':tensorflow:serving:request_latency_bucket{model_name="half_plus_two",API="predict"'
    assert f'{latency},entrypoint="REST",le="10"}}' in text
    assert (
        ':tensorflow:serving:runtime_latency_count{model_name="half_plus_two",API="Predict",'
        'runtime="TF1"}' in text
    )
    status, _, body = call(server, "GET", f"{path}?x=1")
    assert (status, body.decode()) == (400, f"Unexpected path: {path}?x=1. Should be {path}")
    assert call(server, "GET", "/nothing")[0] == 404


def test_unknown_models_make_no_series(server):
    for i in range(20):
        post(server, f"/v1/models/unknown{i}:predict", {"instances": [1]})
        call(server, "GET", f"/v1/models/unknown{i}")
    text = call(server, "GET", "/metrics")[2].decode()
    assert "unknown" not in text


def test_a_call_that_takes_too_long_is_told_so(start, models, tmp_path):
    shutil.copytree(models / "slow", tmp_path / "slow" / "1")
    server = start(
        "--model_name=slow",
        f"--model_base_path={tmp_path / 'slow'}",
        "--rest_api_timeout_in_ms=200",
        "--optimize_models=off",
    ).wait_until_ready()
    path = "/v1/models/slow:predict"
    found = post(server, path, {"inputs": 3_000_000})
    assert found == (504, error("Timed out waiting for notification"))
    server.wait_for(
        "the next call", lambda: post(server, path, {"inputs": 1})[0] == 200, seconds=30
    )
