"""Operations as data: the steps that they take when a server answers so, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from servingd.client import Retry, Signature, TensorSpec
from servingd.client.calls import Pause, Send
from servingd.client.grpc.api import METADATA, PREDICT, GrpcApi
from servingd.client.operations import Given, Operations, spec_of
from servingd.client.rest.api import RestApi
from servingd.client.settings import Settings
from servingd.core.types import DataType, ModelSpec
from servingd.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from servingd.wire import protos
from servingd.wire.json.results import encode_predictions
from servingd.wire.json.status import encode_metadata
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode

STEADY = Retry(jitter=0)
M = ModelSpec("m")
X = {"x": np.float32([1, 2])}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Server:
    """Answers the steps of operations, by gRPC or REST; keeps what it was sent.

    `model` maps signatures to the types of input `x` and output `y`; it can be changed.
    """

    def __init__(self, api=None, **settings):
        self.clock = Clock()
        self.api = api or GrpcApi("grpc://h:1")
        self.model = {"serving_default": ("FLOAT", "FLOAT")}
        self.outputs = {"y": np.float32([3])}
        self.failures: list[Exception] = []
        self.steps: list[Send | Pause] = []
        settings = {"retry": STEADY, **settings}
        self.operations = Operations(self.api, Settings(**settings), self.clock, lambda: 0.5)

    def run(self, steps):
        try:
            step = next(steps)
            while True:
                self.steps.append(step)
                try:
                    answer = self.answer(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value

    def answer(self, step):
        if isinstance(step, Pause):
            self.clock.now += step.seconds
            return None
        if self.failures:
            failure = self.failures.pop(0)
            if failure is not None:
                raise failure
        if isinstance(self.api, RestApi):
            return self.by_rest(step.call)
        return self.by_grpc(step.call)

    def by_grpc(self, call):
        if call.path == METADATA:
            found = protos.GetModelMetadataResponse()
            found.model_spec.name = "m"
            found.metadata["signature_def"].value = self.signatures().SerializeToString()
            return found.SerializeToString()
        request = protos.PredictRequest.FromString(call.body)
        wanted = self.model[request.model_spec.signature_name or "serving_default"][0]
        given = DataType(request.inputs["x"].dtype).name
        if given != wanted:
            raise InvalidArgument(f"Expects arg[0] to be {wanted} but {given} is provided")
        answer = protos.PredictResponse()
        for name, array in self.outputs.items():
            answer.outputs[name].MergeFromString(encode(array, DataType.FLOAT))
        return answer.SerializeToString()

    def by_rest(self, call):
        if call.path.endswith("/metadata"):
            return encode_metadata("m", 1, self.signatures())
        specs = {"y": TensorSpec("", None), **{}}
        kind = DataType[self.model["serving_default"][1]]
        specs = {name: _Typed(kind) for name in self.outputs}
        return encode_predictions(self.outputs, specs, columnar=True)

    def signatures(self):
        found = protos.SignatureDefMap()
        for name, (given, made) in self.model.items():
            one = found.signature_def[name]
            one.inputs["x"].dtype = DataType[given]
            one.inputs["x"].tensor_shape.dim.add(size=-1)
            for output in self.outputs:
                one.outputs[output].dtype = DataType[made]
                one.outputs[output].tensor_shape.dim.add(size=-1)
        return found

    def predict(self, inputs, spec=M, outputs=(), **given):
        return self.run(self.operations.predict(spec, inputs, outputs, Given(**given)))

    @property
    def asked(self):
        """What was asked since the last look."""
        asked = [s.call.path.rpartition("/")[2] if isinstance(s, Send) else s for s in self.steps]
        self.steps = []
        return asked


class _Typed:
    def __init__(self, data_type):
        self.data_type = data_type


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def rest():
    return Server(RestApi())


# ---- what is learned of signatures


def test_arrays_by_name_are_sent_at_once(server):
    assert server.predict(X)["y"].tolist() == [3]
    assert server.asked == ["Predict"]


def test_the_types_for_lists_are_learned_once(server):
    for inputs in ({"x": [1, 2]}, [1, 2], {"x": 2}):
        server.predict(inputs)
    assert server.asked == ["GetModelMetadata", "Predict", "Predict", "Predict"]
    server.predict([1], ModelSpec("m", 3))
    server.predict([1], ModelSpec("m", 3))
    assert server.asked == ["GetModelMetadata", "Predict", "Predict"]  # of another version


def test_the_types_for_arrays_are_learned_when_they_are_refused(server):
    for _ in range(2):
        server.predict({"x": np.float64([1])})
    assert server.asked == ["Predict", "GetModelMetadata", "Predict", "Predict"]


def test_what_was_learned_is_forgotten_when_it_does_not_fit_any_more(server):
    server.predict([1])
    server.model["serving_default"] = ("INT64", "FLOAT")
    assert server.asked == ["GetModelMetadata", "Predict"]
    server.predict([1])
    assert server.asked == ["Predict", "GetModelMetadata", "Predict"]
    server.predict([1])
    assert server.asked == ["Predict"]


def test_an_input_that_cannot_fit_is_named(server):
    with pytest.raises(InvalidArgument) as error:
        server.predict({"x": np.float64([0.1])})
    assert error.value.message == (
        "Expects arg[0] to be FLOAT but DOUBLE is provided (input x is FLOAT [?], got DOUBLE "
        "[1], whose values would change; cast them if that is meant: array.astype(...))"
    )
    assert error.value.field == "x"
    assert server.asked == ["Predict", "GetModelMetadata"]  # the same was not sent twice


def test_other_refusals_keep_the_servers_text(server):
    server.failures = [InvalidArgument("shape!")]
    with pytest.raises(InvalidArgument) as error:
        server.predict(X)
    assert (error.value.message, error.value.field) == ("shape!", None)
    server.failures = [InvalidArgument("shape!"), PermissionDenied("no metadata")]
    with pytest.raises(InvalidArgument, match=r"^shape!$"):
        server.predict(X, ModelSpec("m", 2))


def test_a_signature_that_is_not_there(server):
    with pytest.raises(NotFound, match="model m has no signature z; there are: serving_default"):
        server.predict([1], ModelSpec("m", None, None, "z"))


def test_a_server_without_metadata_is_asked_by_name_all_the_same(server):
    server.failures = [Unimplemented("no metadata")]
    server.model["serving_default"] = ("DOUBLE", "FLOAT")
    assert server.predict({"x": [1.5]})["y"].tolist() == [3]
    server.failures = [Unimplemented("no metadata")]
    with pytest.raises(Unimplemented, match="no metadata"):
        server.predict([1.5], ModelSpec("m", 2))


def test_rest_learns_the_types_of_answers(rest):
    for _ in range(2):
        assert rest.predict(X)["y"].dtype == np.float32
    assert rest.asked == ["metadata", "m:predict", "m:predict"]


def test_rest_learns_anew_when_an_answer_does_not_fit(rest):
    rest.predict(X)
    rest.outputs = {"y": np.float32([1]), "z": np.float32([2])}
    assert rest.predict(X).keys() == {"y", "z"}
    rest.outputs = {"y": np.array([b"a"], object)}
    rest.model["serving_default"] = ("FLOAT", "STRING")
    assert rest.predict(X)["y"].tolist() == [b"a"]
    assert rest.asked == ["metadata", "m:predict"] + 2 * ["m:predict", "metadata", "m:predict"]


def test_rest_learns_the_types_of_the_latest_version_anew_now_and_then(rest):
    rest.predict(X)
    rest.model["serving_default"] = ("FLOAT", "DOUBLE")
    rest.outputs = {"y": np.float64([0.1])}
    rest.clock.now += 59
    assert rest.predict(X)["y"].dtype == np.float32
    rest.clock.now += 2
    assert rest.predict(X)["y"].dtype == np.float64
    assert rest.asked == ["metadata", "m:predict", "m:predict", "metadata", "m:predict"]
    for _ in range(2):
        rest.predict(X, ModelSpec("m", 3))
        rest.clock.now += 61  # a version stays what it is
    assert rest.asked == ["metadata", "3:predict", "3:predict"]


def test_rest_says_so_when_an_answer_never_fits(rest):
    rest.predict(X)
    rest.outputs = {"y": np.array([True])}
    rest.model["serving_default"] = ("FLOAT", "BOOL")
    signatures = rest.signatures()
    signatures.signature_def["serving_default"].outputs["y"].dtype = DataType.STRING
    rest.signatures = lambda: signatures
    with pytest.raises(Internal, match="the answer of model m does not fit its own metadata"):
        rest.predict(X)


def test_a_stream_of_a_pair_is_learned_from_its_two_signatures(rest):
    found = protos.SignatureDefMap()
    init, step = found.signature_def["words_init"], found.signature_def["words_step"]
    init.inputs["text"].dtype = DataType.STRING
    for info in (init.outputs["at"], step.inputs["at"], step.outputs["at"], step.outputs["n"]):
        info.dtype = DataType.INT32
    step.outputs["stop"].dtype = DataType.BOOL
    rest.signatures = lambda: found
    spec = ModelSpec("m", None, None, "words")
    begun = rest.run(rest.operations.stream(spec, "once", (), Given()))
    (part,) = begun.read(b'{"outputs": [7]}').items()
    assert (part[0], part[1].tolist(), part[1].dtype) == ("n", [7], np.int32)
    with pytest.raises(FailedPrecondition, match="another version took over"):
        begun.read(b'{"outputs": {"a": 1}}')
    with pytest.raises(NotFound, match="there are: words_init, words_step"):
        rest.predict("once", spec)  # it is no signature for predict


# ---- deadlines, retries, headers


def test_what_is_unavailable_is_tried_again(server):
    server.failures = [Unavailable("1"), Unavailable("2")]
    assert server.predict(X)["y"].tolist() == [3]
    assert server.asked == ["Predict", Pause(0.05), "Predict", Pause(0.1), "Predict"]
    server.failures = [Unavailable(str(n)) for n in range(1, 9)]
    with pytest.raises(Unavailable, match="3"):
        server.predict(X)


def test_all_attempts_share_a_deadline(server):
    server.failures = [Unavailable("1"), Unavailable("2")]
    with pytest.raises(Unavailable, match="2"):
        server.predict(X, timeout_s=0.12)
    sends = [step.timeout_s for step in server.steps if isinstance(step, Send)]
    assert sends == pytest.approx([0.12, 0.07])


def test_learning_and_asking_share_a_deadline(server):
    steps = server.operations.predict(M, [1], (), Given(timeout_s=1))
    learn = next(steps)
    server.clock.now += 1
    with pytest.raises(DeadlineExceeded, match="no answer within 1 s"):
        steps.send(server.answer(learn))


def test_a_client_may_have_no_deadline():
    server = Server(timeout_s=None)
    server.predict(X)
    server.predict(X, timeout_s=3)
    assert [step.timeout_s for step in server.steps] == [None, 3]


def test_reload_is_not_tried_again(server):
    server.failures = [Unavailable("stopping")]
    with pytest.raises(Unavailable):
        server.run(server.operations.reload([], Given()))
    assert server.asked == ["HandleReloadConfigRequest"]


def test_headers_say_who_asks_and_how_urgent_it_is():
    tokens = iter(["one", "two"])
    server = Server(token=lambda: next(tokens), priority="low", headers=(("x-own", "1"),))
    server.failures = [Unavailable("")]
    server.predict(X, request_id="17", priority="high")
    first, _, second = server.steps
    said = (("x-own", "1"), ("x-servingd-priority", "high"), ("x-request-id", "17"))
    assert first.headers == (*said, ("authorization", "Bearer one"))
    assert second.headers == (*said, ("authorization", "Bearer two"))
    with pytest.raises(InvalidArgument, match="high, normal or low, got 'urgent'"):
        server.predict(X, priority="urgent")


# ---- the rest


def test_labels_come_from_the_servers_own_page(rest):
    rest.answer = lambda step: b'{"name": "a b", "labels": {"stable": 3}}'
    assert rest.run(rest.operations.labels("a b", Given())) == {"stable": 3}
    assert rest.steps[0].call.path == "/servingd/v1/models/a%20b"
    rest.answer = lambda step: b'{"error": "what?"}'
    with pytest.raises(Unimplemented, match="does not tell labels"):
        rest.run(rest.operations.labels("m", Given()))


def test_pages_are_not_at_the_grpc_port(server):
    with pytest.raises(FailedPrecondition, match="use http://h:8501"):
        server.run(server.operations.labels("m", Given()))
    assert server.steps == []


@pytest.mark.parametrize(
    ("answer", "service", "state"),
    [
        (b"ok\n", "", "SERVING"),
        (b"not ready\n", "tensorflow.serving.PredictionService", "NOT_SERVING"),
        (b'{"model_version_status": [{"state": "AVAILABLE"}]}', "m", "SERVING"),
        (b'{"model_version_status": [{"state": "END"}]}', "m", "NOT_SERVING"),
    ],
)
def test_health_over_rest(rest, answer, service, state):
    rest.answer = lambda step: answer
    assert rest.run(rest.operations.health(service, Given())) == state


def test_health_where_there_is_no_such_page(rest):
    rest.failures = [InvalidArgument("Malformed request: GET /readyz")]
    with pytest.raises(Unimplemented, match="no page for its health"):
        rest.run(rest.operations.health("", Given()))


@pytest.mark.parametrize(
    ("answer", "state"),
    [(b"\x08\1", "SERVING"), (b"\x08\2", "NOT_SERVING"), (b"", "UNKNOWN"), (b"\x08\x09", "9")],
)
def test_health_over_grpc(server, answer, state):
    server.answer = lambda step: answer
    assert server.run(server.operations.health("ü", Given())) == state
    assert server.steps[0].call.body == b"\x0a\x02\xc3\xbc"


def test_a_service_that_nobody_knows(server):
    server.failures = [NotFound("")]
    with pytest.raises(NotFound, match="the server knows no service x"):
        server.run(server.operations.health("x", Given()))


def test_metadata_has_shapes_and_types(server):
    found = server.run(server.operations.metadata(M, Given()))
    tensor = TensorSpec("FLOAT", (None,))
    assert found.signatures == {"serving_default": Signature({"x": tensor}, {"y": tensor}, "")}
    assert str(tensor) == "FLOAT [?]"


def test_reload_takes_mappings_or_the_text_of_a_file(server):
    text = 'model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" } }'
    mapping = {"name": "a", "base_path": "/a"}
    one, other = (server.api.reload(models) for models in (text, [mapping]))
    assert one == other
    assert not one.may_repeat
    full = {**mapping, "model_platform": "onnx", "model_version_policy": {"latest": {}}}
    request = protos.ReloadConfigRequest.FromString(server.api.reload([full]).body)
    assert request.config.model_config_list.config[0].model_platform == "onnx"
    for wrong, why in [("a: 1", 'no field named "a"'), ([{"nam": 1}], "nam"), ([3], "models: ")]:
        with pytest.raises(InvalidArgument, match=why):
            server.api.reload(wrong)


def test_a_reload_that_failed_is_told(server):
    answer = protos.ReloadConfigResponse()
    server.api.read_reload(answer.SerializeToString())
    answer.status.error_code, answer.status.error_message = 5, "no such folder"
    with pytest.raises(NotFound, match="no such folder"):
        server.api.read_reload(answer.SerializeToString())


def test_a_version_and_a_label_are_too_much():
    assert spec_of("m", 1, None, "s") == ModelSpec("m", 1, None, "s")
    with pytest.raises(InvalidArgument, match="a version or a label, not both"):
        spec_of("m", 1, "stable")


def test_requests_by_grpc_hold_what_was_given(server):
    spec = ModelSpec("m", 3, None, "s")
    inputs = {"x": np.array([b"a\0", "ü"], object), "": np.float32(2)}
    call = server.api.predict(spec, inputs, ("y",), is_stream=False)
    request = protos.PredictRequest.FromString(call.body)
    assert (call.path, request.model_spec.version.value) == (PREDICT, 3)
    assert (request.model_spec.signature_name, list(request.output_filter)) == ("s", ["y"])
    assert decode(request.inputs["x"], "x").tolist() == [b"a\0", "ü".encode()]
    assert decode(request.inputs[""], "").item() == 2
    with pytest.raises(InvalidArgument, match="input x: not a tensor of string: it holds a list"):
        server.api.predict(M, {"x": np.array([b"a", [b"b"]], object)}, (), is_stream=False)
