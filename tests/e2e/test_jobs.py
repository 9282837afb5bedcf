"""Calls that nobody waits for: submitted, asked for later, and cancelled, over REST and gRPC."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tensorflow_serving.apis import predict_pb2

from tests.e2e.process import Process, lookup_table, request, to_array

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

PREDICT = "/v1/models/half_plus_two:predict"
LONG = {"n": 100_000_000}


def ask(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    with contextlib.closing(connection) as client:
        client.request(method, path, body if body is None else json.dumps(body), headers or {})
        answer = client.getresponse()
        return answer, answer.read()


def submit(server, body, path=PREDICT, **headers):
    answer, text = ask(server, "POST", f"{path}?async=true", body, headers)
    assert answer.status == 202, text
    job = json.loads(text)
    assert job["state"] == "pending"
    assert answer.headers["location"] == f"/servingd/v1/jobs/{job['id']}"
    return answer.headers["location"]


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def server(request, models, tmp_path_factory):
    """A server; what carries gRPC makes no difference to unary calls."""
    root = tmp_path_factory.mktemp("jobs")
    for name in ("half_plus_two", "slow"):
        shutil.copytree(models / name, root / "models" / name / "1")
    process = Process(
        root / "log",
        f"--model_repository={root}/models",
        "--optimize_models=off",
        f"--workers={request.param}",
    )
    try:
        yield process.wait_until_ready()
        assert process.terminate() == 0, process.tail()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


def test_a_job_gives_the_answer_that_the_call_would_have_given(server):
    whole = ask(server, "POST", PREDICT, {"instances": [1.0, 2.0, 5.0]})
    job = submit(server, {"instances": [1.0, 2.0, 5.0]})
    for _ in range(2):
        answer, text = ask(server, "GET", f"{job}?wait_s=30")
        assert (answer.status, text) == (200, whole[1])
        assert answer.headers["content-type"] == "application/json"


def test_an_error_is_the_result_too(server):
    whole = ask(server, "POST", PREDICT, {"instances": ["a"]})
    answer, text = ask(server, "GET", f"{submit(server, {'instances': ['a']})}?wait_s=30")
    assert (answer.status, text) == (whole[0].status, whole[1])
    assert answer.status == 400
    job = submit(server, {"instances": [1.0]}, "/v1/models/nobody:predict")
    answer, text = ask(server, "GET", f"{job}?wait_s=30")
    assert answer.status == 404
    assert b"nobody" in text


def test_a_job_that_runs_is_pending_and_can_be_cancelled(server):
    job = submit(server, {"inputs": LONG}, "/v1/models/slow:predict")
    began = time.monotonic()
    answer, text = ask(server, "GET", f"{job}?wait_s=0.3")
    assert time.monotonic() - began >= 0.3
    assert (answer.status, json.loads(text)["state"]) == (202, "pending")
    waiting = []
    waits = threading.Thread(target=lambda: waiting.append(ask(server, "GET", f"{job}?wait_s=60")))
    waits.start()
    time.sleep(0.2)
    answer, text = ask(server, "DELETE", job)
    assert (answer.status, json.loads(text)["state"]) == (200, "cancelled")
    waits.join(30)
    assert json.loads(waiting[0][1])["state"] == "cancelled"
    assert ask(server, "GET", job)[0].status == 404
    assert ask(server, "DELETE", job)[0].status == 404


def test_what_is_asked_wrongly_is_told(server):
    job = submit(server, {"instances": [1.0]})
    for wrong in ("x", "-1", "61", "nan"):
        answer, text = ask(server, "GET", f"{job}?wait_s={wrong}")
        assert answer.status == 400
        assert b"wait_s: expected seconds" in text
    assert ask(server, "POST", job)[0].status == 405
    assert ask(server, "GET", "/servingd/v1/jobs/1")[0].status == 404
    answer, text = ask(server, "POST", "/v1/models/half_plus_two?async=true", {})
    assert answer.status == 400
    assert b"Malformed request: POST /v1/models/half_plus_two?async=true" in text


class Stub:
    """Made from what the server's reflection says of the service."""

    def __init__(self, server):
        # A pool of its own: other tests look at what the default one does not have.
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel))
        job, ask_for = (
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"servingd.{name}"))
            for name in ("Job", "JobRequest")
        )
        self.request = ask_for
        path, read = "/servingd.JobService/", job.FromString
        unary = server.channel.unary_unary
        self.submit = unary(f"{path}Submit", predict_pb2.PredictRequest.SerializeToString, read)
        self.get = unary(f"{path}Get", ask_for.SerializeToString, read)
        self.cancel = unary(f"{path}Cancel", ask_for.SerializeToString, read)


def test_jobs_over_grpc(server):
    stub = Stub(server)
    message = request("half_plus_two", {"x": np.array([1, 2], np.float32)})
    job = stub.submit(message, timeout=30)
    assert job.id
    assert not job.done
    found = stub.get(stub.request(id=job.id, wait_s=30), timeout=60)
    assert (found.id, found.done, found.code) == (job.id, True, 0)
    answer = predict_pb2.PredictResponse.FromString(found.response)
    assert to_array(answer.outputs["y"]).tolist() == [2.5, 3.0]
    # Over REST it is the same job.
    page, body = ask(server, "GET", f"/servingd/v1/jobs/{job.id}")
    assert page.headers["content-type"] == "application/x-protobuf"
    assert body == found.response
    assert stub.cancel(stub.request(id=job.id), timeout=30).id == job.id
    with pytest.raises(grpc.RpcError) as error:
        stub.get(stub.request(id=job.id), timeout=30)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_failed_job_over_grpc(server):
    stub = Stub(server)
    job = stub.submit(request("nobody", {}), timeout=30)
    found = stub.get(stub.request(id=job.id, wait_s=30), timeout=60)
    assert (found.done, found.code) == (True, 5)
    assert found.message == "Servable not found for request: Latest(nobody)"


def test_a_store_that_is_full_refuses(start, tmp_path):
    lookup_table(tmp_path / "names" / "1")
    server = start(f"--model_repository={tmp_path}", "--jobs_mb=1").wait_until_ready()
    path, body = "/v1/models/names:predict", {"instances": ["1"]}
    statuses = [ask(server, "POST", f"{path}?async=true", body)[0] for _ in range(300)]
    assert statuses[0].status == 202
    refused = next(answer for answer in statuses if answer.status != 202)
    assert refused.status == 429
    assert refused.headers["retry-after"] == "5"


def test_any_worker_answers_for_any_job(start, tmp_path):
    lookup_table(tmp_path / "names" / "1")
    server = start(f"--model_repository={tmp_path}", "--workers=3").wait_until_ready()
    path, body = "/v1/models/names:predict", {"instances": ["1"]}
    for _ in range(20):  # each request is a connection of its own, and so another worker's
        job = submit(server, body, path)
        answer, text = ask(server, "GET", f"{job}?wait_s=30")
        assert (answer.status, json.loads(text)) == (200, {"predictions": ["one"]})
        assert json.loads(ask(server, "DELETE", job)[1])["state"] == "cancelled"
        assert ask(server, "GET", job)[0].status == 404


class Hooks:
    """A server that takes posts; the first of them fails."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict]] = []
        hooks = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                hooks.posts.append((self.path, body))
                self.send_response(500 if len(hooks.posts) == 1 else 204)
                self.end_headers()

            def log_message(self, *args) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_the_end_of_a_job_is_told_where_that_is_allowed(start, tmp_path):
    hooks = Hooks()
    allowed = f"http://127.0.0.1:{hooks.port}/jobs/"
    lookup_table(tmp_path / "names" / "1")
    server = start(f"--model_repository={tmp_path}", f"--job_webhooks={allowed}")
    server.wait_until_ready()
    path, body = "/v1/models/names:predict", {"instances": ["1"]}
    job = submit(server, body, path, **{"x-servingd-webhook": f"{allowed}a"})
    server.wait_for("the second try", lambda: len(hooks.posts) == 2)
    told = {"id": job.rpartition("/")[2], "state": "done", "code": "OK", "message": ""}
    assert hooks.posts == [("/jobs/a", told)] * 2
    for elsewhere in (f"http://127.0.0.1:{hooks.port}/other", f"{allowed}../other"):
        answer, text = ask(
            server, "POST", f"{path}?async=true", body, {"x-servingd-webhook": elsewhere}
        )
        assert (answer.status, b"--job_webhooks" in text) == (403, True)
    assert len(hooks.posts) == 2
    hooks.server.shutdown()
    hooks.server.server_close()
