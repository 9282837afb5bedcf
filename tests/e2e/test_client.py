"""The light client in its four kinds, beside the real server and the official messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from servingd.client import Client, Retry, TensorSpec, Tls
from servingd.client.address import find_address
from servingd.client.grpc.api import GrpcApi
from servingd.core.types import ModelSpec
from servingd.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from tests import exports
from tests.client_kinds import KINDS, open_client
from tests.e2e.process import Process, lookup_table, request
from tests.e2e.test_examples import classification, listed, regression
from tests.e2e.test_surface import pki, ssl_config  # noqa: F401  # a fixture, too

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

ONCE = Retry(attempts=1)
WAIT = 20


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def client(server, kind):
    """Of the server that many tests share."""
    with open_client(kind, server.port, server.http_port) as client:
        yield client


# ---- inference


def test_values_of_any_kind_are_cast(client):
    for inputs in ({"x": np.float32([1, 2])}, {"x": [1, 2]}, [1, 2], np.int64([1, 2])):
        outputs = client.predict("half_plus_two", inputs)
        assert outputs.keys() == {"y"}
        assert outputs["y"].dtype == np.float32
        assert outputs["y"].tolist() == [2.5, 3.0]
    assert client.predict("half_plus_two", [0.1])["y"].tolist() == [np.float32(2.05)]
    special = client.predict("half_plus_two", [float("nan"), float("inf"), -float("inf")])["y"]
    np.testing.assert_array_equal(special, np.float32([np.nan, np.inf, -np.inf]))


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        "float64",
        "float16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint32",
        "uint64",
        "bool",
    ],
)
def test_types_come_back_as_they_were(client, dtype):
    for value in (np.array([[0, 1], [1, 0]], dtype), np.array(1, dtype)):
        found = client.predict("echo", {"x": value}, signature=dtype)["y"]
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tolist() == value.tolist()


def test_texts_bytes_and_files_come_back_as_bytes(client, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\xff")
    for given, found in [
        ("ü", "ü".encode()),
        (["a", b"\xff\0"], [b"a", b"\xff\0"]),
        ([["a"], ["b"]], [[b"a"], [b"b"]]),
        (np.array([b"a\0"], object), [b"a\0"]),
        ([path], [path.read_bytes()]),
        ([], []),
    ]:
        outputs = client.predict("echo", given, signature="string")
        assert outputs["y"].dtype == object
        assert outputs["y"].tolist() == found


def test_several_inputs_and_outputs(client, kind):
    inputs = {"x": [[1, 2, 3]], "z": [4]}
    outputs = client.predict("echo", inputs)
    assert {name: one.tolist() for name, one in outputs.items()} == {"sum": 10, "x": [[1, 2, 3]]}
    assert client.predict("echo", inputs, outputs="sum").keys() == {"sum"}
    assert client.predict("echo", inputs, outputs=["x"]).keys() == {"x"}
    if kind.startswith("grpc"):  # JSON has no shape of what is empty
        empty = client.predict("echo", {"x": np.zeros((0, 3), np.float32), "z": []})
        assert empty["x"].shape == (0, 3)


def test_errors_have_the_servers_text_and_name_the_input(client, kind):
    with pytest.raises(NotFound, match=r"Servable not found for request: Latest\(nobody\)"):
        client.predict("nobody", {"x": np.float32([1])})
    with pytest.raises(NotFound, match=r"Specific\(half_plus_two, 7\)") as error:
        client.predict("half_plus_two", [1], version=7, request_id="17")
    with pytest.raises(NotFound) as error:
        client.predict("half_plus_two", {"x": np.float32([1])}, version=7, request_id="17")
    assert error.value.request_id == "17"
    with pytest.raises(InvalidArgument, match=r"input z is missing; it is INT32 \[\?\]") as error:
        client.predict("echo", {"x": [[1, 2, 3]]})
    assert error.value.field == "z"
    with pytest.raises(InvalidArgument, match=r"input x is FLOAT \[\?\], got STRING") as error:
        client.predict("half_plus_two", ["a"])
    assert error.value.field == "x"
    with pytest.raises(InvalidArgument, match="has 2 inputs: expected a mapping"):
        client.predict("echo", [1])
    with pytest.raises(NotFound, match="has no signature none; there are: "):
        client.predict("echo", [1], signature="none")
    with pytest.raises((InvalidArgument, FailedPrecondition), match="none"):
        client.predict("echo", {"x": [[1, 2, 3]], "z": [4]}, outputs="none")


def test_examples_are_classified_and_regressed(client):
    examples = [{"x": 2.0, "word": "cat"}, {}]
    assert client.classify("examples", examples, signature="classify") == [
        [("cat", 3.0), ("other", -3.0)],
        [("none", 2.0), ("other", -2.0)],
    ]
    values = client.regress("examples", [{"x": [2.0]}, {"x": np.float32([4])}], version=1)
    assert (values.dtype, values.tolist()) == (np.float32, [3.0, 4.0])
    with pytest.raises(InvalidArgument, match="expected"):
        client.classify("examples", [{"x": [1, "a"]}], signature="classify")


def test_time_is_up(client):
    client.metadata("slow")
    with pytest.raises(DeadlineExceeded):
        client.predict("slow", 3_000_000, timeout_s=0.05)


# ---- what the server says of models and itself


def test_models_are_described(client):
    found = client.metadata("echo", version=1)
    assert (found.name, found.version) == ("echo", 1)
    signature = found.signatures["serving_default"]
    assert signature.method == "tensorflow/serving/predict"
    assert {name: str(spec) for name, spec in signature.inputs.items()} == {
        "x": "FLOAT [?, 3]",
        "z": "INT32 [?]",
    }
    assert signature.outputs["sum"].shape == ()
    rankless = found.signatures["int64"].inputs["x"]
    assert rankless == TensorSpec("INT64", None, rankless.name)
    assert client.inputs("echo", signature="int64") == {"x": "INT64"}


def test_states(client):
    assert client.status("echo") == client.status("echo", version=1) == {1: "AVAILABLE"}
    (version,) = client.versions("echo")
    assert (version.version, version.state) == (1, "AVAILABLE")
    assert (version.error_code, version.error_message) == ("OK", "")
    with pytest.raises(NotFound, match="Could not find any versions of model nobody"):
        client.status("nobody")
    assert client.health() == client.health("echo") == "SERVING"
    with pytest.raises(NotFound):
        client.health("nobody")


def test_pages_are_at_the_http_port(client, server, kind):
    if kind.startswith("grpc"):
        for ask in (lambda: client.page("/servingd/v1/models"), lambda: client.labels("echo")):
            with pytest.raises(FailedPrecondition, match=r"use http://127\.0\.0\.1:8501"):
                ask()
        return
    assert "echo" in {model["name"] for model in client.page("/servingd/v1/models")["models"]}
    assert client.page("/livez") == "ok\n"
    with pytest.raises(NotFound, match="there is nothing at /servingd/v1/none"):
        client.page("/servingd/v1/none")
    with pytest.raises((Unimplemented, NotFound)):
        client.page("/servingd/v1/models", {"a": 1})
    with pytest.raises(FailedPrecondition, match="reload goes by gRPC alone"):
        client.reload([])


def test_the_ports_are_told_apart(server):
    assert find_address(f"127.0.0.1:{server.port}") == f"grpc://127.0.0.1:{server.port}"
    assert find_address(f"127.0.0.1:{server.http_port}") == f"http://127.0.0.1:{server.http_port}"


def test_compressed_both_ways(server, kind):
    with open_client(kind, server.port, server.http_port, compression="gzip") as client:
        x = np.zeros((1, 5000), np.float32)
        assert client.predict("echo", {"x": x}, signature="float32")["y"].shape == (1, 5000)


# ---- streams, labels, reload: a server of this file's own


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    exports.countdown(folder / "countdown" / "1")
    for version, one in ((1, "one"), (2, "first")):
        lookup_table(folder / "table" / str(version), one)
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "countdown" base_path: "{folder}/countdown" '
        f'model_platform: "tensorflow" }} config {{ name: "table" base_path: "{folder}/table" '
        'model_platform: "lookup_table" model_version_policy { all {} } '
        'version_labels { key: "stable" value: 1 } } }'
    )
    (folder / "token").write_text("open-sesame")
    process = Process(
        folder / "log",
        f"--model_config_file={config}",
        f"--admin_token_file={folder / 'token'}",
        "--optimize_models=off",
    )
    process.folder = folder
    try:
        yield process.wait_until_ready()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


@pytest.fixture
def mine(own, kind):
    with open_client(kind, own.port, own.http_port) as client:
        yield client


def test_a_stream_comes_in_parts(mine):
    inputs = {"text": ["a", "b"], "times": [3, 2]}
    parts = list(mine.stream("countdown", inputs, signature="generate"))
    assert [part["number"].tolist() for part in parts] == [[2, 1], [1, 0], [0, -1]]
    assert [part["token"].tolist() for part in parts] == [[b"a", b"b"]] * 3
    assert parts[0]["number"].dtype == np.int32
    chosen = mine.stream("countdown", inputs, signature="generate", outputs="token")
    assert [part.keys() for part in chosen] == [{"token"}] * 3
    assert [part["y"].tolist() for part in mine.stream("countdown", [7])] == [[7]]
    with pytest.raises(InvalidArgument, match="input times is missing"):
        next(mine.stream("countdown", {"text": ["a"]}, signature="generate"))


def test_a_stream_that_is_closed_is_made_no_further(own, mine, kind):
    method = "PredictStreamed" if kind.startswith("grpc") else "predict_streamed"
    protocol = "grpc" if kind.startswith("grpc") else "rest"
    labels = f'code="CANCELLED",method="{method}",model="countdown",protocol="{protocol}"'
    line = f'servingd_requests_total{{{labels},signature="endless",version="1"}}'
    before = own.metric(line) or 0
    parts = mine.stream("countdown", {"size": 1}, signature="endless", timeout_s=WAIT)
    assert [next(parts)["number"].item() for _ in range(20)] == list(range(20))
    parts.close()
    own.wait_for("the end of the stream", lambda: own.metric(line) == before + 1)


def test_the_deadline_is_of_the_whole_stream(mine):
    with pytest.raises(DeadlineExceeded):
        for _ in mine.stream("countdown", {"size": 1}, signature="endless", timeout_s=0.3):
            pass


def test_a_version_or_a_label(mine):
    def one(**spec):
        return mine.predict("table", ["1"], **spec)["values"].tolist()

    assert one() == one(version=2) == [b"first"]
    assert one(label="stable") == one(version=1) == [b"one"]
    assert mine.status("table") == {2: "AVAILABLE", 1: "AVAILABLE"}
    assert mine.status("table", label="stable") == {1: "AVAILABLE"}
    assert mine.metadata("table", label="stable").version == 1
    with pytest.raises(InvalidArgument, match="a version or a label, not both"):
        one(version=1, label="stable")
    with pytest.raises((InvalidArgument, FailedPrecondition), match="canary"):
        one(label="canary")
    if mine.transport == "rest":
        assert mine.labels("table") == {"stable": 1}
        assert mine.labels("countdown") == {}
        with pytest.raises(NotFound, match="Could not find any versions of model nobody"):
            mine.labels("nobody")


@pytest.mark.parametrize("kind", ["grpc", "grpc-async"])
def test_a_reload_needs_the_token_and_is_told_what_is_wrong(own, kind):
    models = (own.folder / "models.config").read_text()
    with (
        open_client(kind, own.port, 0) as client,
        pytest.raises(Unauthenticated, match="Bearer TOKEN"),
    ):
        client.reload(models)
    with open_client(kind, own.port, 0, token=lambda: "open-sesame") as client:
        more = {
            "name": "more",
            "base_path": f"{own.folder}/table",
            "model_platform": "lookup_table",
        }
        with pytest.raises((InvalidArgument, NotFound), match="nowhere"):
            client.reload([{**more, "base_path": "nowhere"}])
        countdown = {"name": "countdown", "base_path": f"{own.folder}/countdown"}
        table = {**more, "name": "table", "model_version_policy": {"all": {}}}
        client.reload([countdown, table, {**more, "version_labels": {}}])
        assert client.status("more") == {2: "AVAILABLE"}
        client.reload(models)
    # The next test adds the model anew: until it is gone, its old version would do for that.
    own.wait_for("the end of more", lambda: own.states("more") == {})


# ---- encryption, several workers


@pytest.mark.parametrize("verify", [False, True])
def test_encrypted(start, pki, tmp_path, verify):  # noqa: F811
    lookup_table(tmp_path / "models" / "m" / "1")
    file = ssl_config(pki, tmp_path / "ssl.config", verify=verify)
    server = start(
        f"--model_repository={tmp_path / 'models'}",
        f"--ssl_config_file={file}",
        f"--rest_ssl_config_file={file}",
    )
    tls = Tls(pki / "ca.pem", *((pki / "client.pem", pki / "client.key") if verify else ()))
    named = Tls(tls.ca_file, tls.cert_file, tls.key_file, server_name="localhost")
    ports = (server.port, server.http_port)
    with open_client("rest", *ports, secure=True, tls=tls, retry=ONCE) as first:

        def is_ready():
            try:
                return first.health() == "SERVING"
            except Unavailable:
                return False

        server.wait_for("readiness", is_ready)
    for kind in KINDS:
        for how in ({"tls": tls}, {"tls": named, "host": "127.0.0.1"}):
            with open_client(
                kind, *ports, **{"host": "localhost", "secure": True, **how}
            ) as client:
                for _ in range(3):
                    assert client.predict("m", ["1"])["values"].tolist() == [b"one"]
        untrusting = {"host": "localhost", "secure": True, "retry": ONCE}
        with open_client(kind, *ports, **untrusting) as client, pytest.raises(Unavailable):
            client.status("m")
        if verify:
            with (
                open_client(kind, *ports, **untrusting, tls=Tls(pki / "ca.pem")) as client,
                pytest.raises((Unavailable, PermissionDenied)),
            ):
                client.status("m")
    for port, scheme in zip(ports, ("grpcs", "https"), strict=True):
        assert find_address(f"localhost:{port}") == f"{scheme}://localhost:{port}"


def connections(process: int, port: int) -> int:
    """How many clients are connected with a process at a port."""
    folder = Path(f"/proc/{process}/fd")
    sockets = {os.readlink(entry) for entry in folder.iterdir()}
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    return sum(
        row[1].endswith(f":{port:04X}") and row[3] == "01" and f"socket:[{row[9]}]" in sockets
        for row in rows
    )


def test_connections_reach_all_workers_and_outlive_one(start, tmp_path):
    lookup_table(tmp_path / "m" / "1")
    server = start(f"--model_repository={tmp_path}", "--workers=2").wait_until_ready()
    with Client(f"http://127.0.0.1:{server.http_port}") as pages:

        def processes():
            workers = pages.page("/servingd/v1/workers")["workers"]
            return [one["process"] for one in workers if one["state"] == "serving"]

        server.wait_for("two workers", lambda: len(processes()) == 2)
        first, second = processes()
        with Client(f"127.0.0.1:{server.port}", connections=16) as client:
            for _ in range(32):
                client.predict("m", ["1"])
            counts = [connections(process, server.port) for process in (first, second)]
            assert sum(counts) == 16
            assert all(counts)
            os.kill(first, signal.SIGKILL)
            for _ in range(64):
                assert client.predict("m", ["1"])["values"].tolist() == [b"one"]


# ---- what is on the wire


def our(make, *arguments):
    return make(ModelSpec("m", 3, None, "own"), *arguments).body


def test_our_messages_are_the_official_ones():
    api = GrpcApi("")
    x, words = np.float32([[1, 2]]), np.array([b"a", "ü"], object)
    ours = predict_pb2.PredictRequest.FromString(
        our(api.predict, {"x": x, "words": words}, ("y",), False)
    )
    theirs = request(
        "m", {"x": x, "words": np.array([b"a", "ü".encode()], object)}, outputs=["y"], version=3
    )
    theirs.model_spec.signature_name = "own"
    for name in ("x", "words"):
        import tensorflow as tf

        made = [tf.make_ndarray(message.inputs[name]) for message in (ours, theirs)]
        assert made[0].tolist() == made[1].tolist()
        assert ours.inputs[name].dtype == theirs.inputs[name].dtype
        assert ours.inputs[name].tensor_shape == theirs.inputs[name].tensor_shape
        ours.inputs[name].CopyFrom(theirs.inputs[name])
    assert ours == theirs

    one = tf.train.Example()
    one.features.feature["x"].float_list.value.append(1.5)
    one.features.feature["word"].bytes_list.value.append(b"cat")
    one.features.feature["n"].int64_list.value.append(3)
    examples = [{"x": 1.5, "word": "cat", "n": 3}]
    for message, wanted, make in (
        (classification_pb2.ClassificationRequest, classification, api.classify),
        (regression_pb2.RegressionRequest, regression, api.regress),
    ):
        official = wanted(listed(one), "own", "m")
        official.model_spec.version.value = 3
        assert message.FromString(our(make, examples)) == official

    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    status = get_model_status_pb2.GetModelStatusRequest()
    for official, make in ((metadata, api.metadata), (status, api.status)):
        official.model_spec.name, official.model_spec.version.value = "m", 3
        found = type(official).FromString(make(ModelSpec("m", 3)).body)
        assert found == official
    reload = model_management_pb2.ReloadConfigRequest()
    reload.config.model_config_list.config.add(
        name="a", base_path="/a", model_platform="tensorflow"
    )
    made = api.reload([{"name": "a", "base_path": "/a"}]).body
    assert model_management_pb2.ReloadConfigRequest.FromString(made) == reload


def test_the_program_in_the_docstring_works(server):
    import servingd.client

    text = servingd.client.__doc__
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    program = "\n".join(lines).replace("localhost:8500", f"127.0.0.1:{server.port}")
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    told = [line.partition("  # ")[2] for line in lines if "print(" in line]
    shown = result.stdout.splitlines()
    assert shown[0] == told[0]
    assert shown[2] == told[2].partition(",")[0]
    assert shown[3:] == ["2675.0", "[2.5]"]


HEAVY = """tensorflow orjson msgspec prometheus_client uvloop typer rich watchdog google_crc32c
httptools simdjson yaml cramjam grpc_health grpc_reflection pygrpc_native PIL asyncio grpc http"""


def test_importing_the_client_imports_little():
    program = (
        "import sys, servingd.client; import servingd.client.address;"
        f"print([m for m in {HEAVY.split()} if m in sys.modules],"
        " [m for m in sys.modules if m.startswith('servingd.') and m.split('.')[1] not in"
        " ('client', 'core', 'wire', 'errors')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[] []"


def test_calls_from_many_threads(server):
    with Client(f"127.0.0.1:{server.port}", connections=2) as client:
        found = []

        def ask(number):
            found.append(client.predict("half_plus_two", [number])["y"].item() == number / 2 + 2)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert found == [True] * 16
