"""What a call is counted as, whoever of its reply, its client and its run is faulty or late."""

import time
import types

import numpy as np
import pytest

from servingd.core.batching.queue import Priority
from servingd.core.types import DataType, ModelSpec, ServableId, Signature, TensorSpec
from servingd.errors import Code, Internal
from servingd.frontends.call import CallContext
from servingd.frontends.http.messages import HttpReply
from servingd.frontends.tfs.rest.inference import JsonClassify, JsonPredict, _are_large
from servingd.frontends.tfs.rest.reply import RestReply, reply_form
from servingd.inference.multi_inference import _Part, _Parts
from servingd.observability.requests import RequestMetrics
from servingd.wire.tensors.types import data_type_of
from tests.threads.fakes import signature

OUTPUTS = {"y": np.ones(1, np.float32)}


class SignatureRunner:
    """Keeps a call until the test ends its run."""

    def __init__(self):
        self.signature, self.notes = signature(), {}

    def run(self, inputs, done):
        self.done = done


class ServableHandle:
    id, metadata = ServableId("m", 1), {}

    def __init__(self):
        self.runners = {"serving_default": SignatureRunner()}
        self.released = 0

    def release(self):
        self.released += 1


class Everything:
    """One handle on one model, its metrics and its request log."""

    def __init__(self):
        self.handle = ServableHandle()
        self.metrics = RequestMetrics()
        self.logged = []
        self.context = CallContext(
            models=self,
            metrics=self.metrics,
            is_configured=lambda name: False,
            request_log=self,
        )

    def acquire(self, spec):
        return self.handle

    def samples(self, model):
        return True

    def write(self, servable, kind, request, response):
        self.logged.append(kind)

    def start(self, reply):
        """Start a call that waits; its completion."""
        JsonPredict(reply, self.context).start(ModelSpec("m"), b'{"instances": [1.0]}')
        return self.handle.runners["serving_default"].done

    @property
    def counted(self):
        histograms = self.metrics.histograms()
        return [
            (key.method, key.code.name, histogram.count)
            for key, histogram in histograms
            if histogram.count
        ]


@pytest.fixture
def everything():
    return Everything()


def rest_reply(timeout_s=3600.0):
    owner = types.SimpleNamespace(alone=True, answered=lambda connection: None)
    connection = types.SimpleNamespace(owner=owner, lost=False)
    http = HttpReply(connection, head=False, keep_alive=True)
    return RestReply(http, reply_form({}, ()), timeout_s), http


def test_a_call_that_is_answered_is_counted_and_logged(everything):
    reply, http = rest_reply()
    everything.start(reply).succeed(OUTPUTS)
    assert http.payload[0].startswith(b"HTTP/1.1 200")
    assert everything.counted == [("predict", "OK", 1)]
    assert everything.logged == ["predict_log"]
    assert everything.handle.released == 1


@pytest.mark.parametrize("how", ["succeeds", "fails"])
def test_a_call_whose_time_was_up_is_counted_as_its_client_saw_it(everything, how):
    reply, http = rest_reply(timeout_s=0.0)
    done = everything.start(reply)
    reply.expire()
    if how == "succeeds":
        done.succeed(OUTPUTS)
    else:
        done.fail(Internal("boom"))
    assert http.payload[0].startswith(b"HTTP/1.1 504")
    assert everything.counted == [("predict", "DEADLINE_EXCEEDED", 1)]
    assert everything.logged == []
    assert everything.handle.released == 1


class Deaf:
    """A reply that nobody waits for, or whose transport has been closed."""

    alone, content_type = True, ""

    def __init__(self, trouble=None, left_s=3600.0):
        self.deadline = time.monotonic() + left_s
        self._trouble = trouble

    def alive(self):
        return False

    def priority(self):
        return Priority.NORMAL

    def request_id(self):
        return ""

    def send(self, payload):
        if self._trouble:
            raise self._trouble
        return False

    def fail(self, code, message, retry_after_s=None):
        return self.send(b"")


@pytest.mark.parametrize(("left_s", "code"), [(3600.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")])
def test_an_answer_that_nobody_hears_is_no_success(everything, left_s, code):
    everything.start(Deaf(left_s=left_s)).succeed(OUTPUTS)
    assert everything.counted == [("predict", code, 1)]
    assert everything.logged == []
    assert everything.handle.released == 1


def test_a_failure_that_nobody_hears_is_counted_as_what_it_is(everything):
    everything.start(Deaf()).fail(Internal("boom"))
    assert everything.counted == [("predict", "INTERNAL", 1)]


@pytest.mark.parametrize("how", ["succeeds", "fails"])
def test_a_reply_that_raises_keeps_no_lease(everything, how):
    done = everything.start(Deaf(RuntimeError("front is closed")))
    with pytest.raises(RuntimeError):
        done.succeed(OUTPUTS) if how == "succeeds" else done.fail(Internal("boom"))
    assert everything.counted == [("predict", Code.INTERNAL.name, 1)]
    assert everything.handle.released == 1


def test_the_parts_of_a_multi_inference_wait_as_their_call_says():
    def send_off():
        raise NotImplementedError

    call = types.SimpleNamespace(
        deadline=7.0,
        alone=True,
        priority=lambda: Priority.HIGH,
        alive=lambda: True,
        begin_batch=lambda: send_off,
    )
    part = _Part(_Parts(call, []), 0)
    assert (part.deadline, part.alone, part.priority()) == (7.0, True, Priority.HIGH)
    assert part.begin_batch() is send_off


class Loop:
    """A connection whose writer is this thread, or another; and a worker that waits to be told."""

    def __init__(self, is_here):
        self.owner = self
        self.lost = self.alone = False
        self.is_here = is_here
        self.jobs = []

    def answered(self, client):
        pass

    def submit(self, job):
        self.jobs.append(job)


@pytest.mark.parametrize("is_here", [True, False])
@pytest.mark.parametrize(
    "output", [np.ones(10_000, np.float32), np.array([b"x" * 40_000], object), np.ones(1)]
)
def test_a_large_answer_is_written_by_a_worker_where_the_loop_ran_the_call(is_here, output):
    everything, loop = Everything(), Loop(is_here)
    http = HttpReply(loop, head=False, keep_alive=True)
    done = everything.start(RestReply(http, reply_form({}, ()), 30.0, loop))
    everything.handle.runners["serving_default"].signature.outputs["y"] = types.SimpleNamespace(
        data_type=data_type_of(output.dtype)
    )
    done.succeed({"y": output})
    large = output.size > 1 or output.dtype == object
    assert len(loop.jobs) == (is_here and large)
    assert bool(http.payload) is not bool(loop.jobs)
    for job in loop.jobs:
        job()
    assert http.payload[1].startswith(b'{\n    "predictions": [')
    assert everything.handle.released == 1


def test_a_large_classification_is_written_by_a_worker():
    everything, loop = Everything(), Loop(is_here=True)
    http = HttpReply(loop, head=False, keep_alive=True)
    runner = everything.handle.runners["serving_default"]
    runner.signature = Signature(
        "serving_default",
        {"inputs": TensorSpec(DataType.STRING, (None,), "x:0")},
        {"scores": TensorSpec(DataType.FLOAT, (None, None), "y:0")},
        "tensorflow/serving/classify",
    )
    call = JsonClassify(RestReply(http, reply_form({}, ()), 30.0, loop), everything.context)
    call.start(ModelSpec("m"), b'{"examples": [{"x": 1.0}]}')
    runner.done.succeed({"scores": np.ones((1, 10_000), np.float32)})
    assert not http.payload
    (job,) = loop.jobs
    job()
    assert http.payload[1].startswith(b'{\n    "results": [')


@pytest.mark.parametrize("size", [64 << 10, (64 << 10) + 1])
@pytest.mark.parametrize("is_here", [True, False])
@pytest.mark.parametrize("gzip", [True, False])
def test_a_large_answer_is_compressed_by_a_worker_where_the_loop_sends_it(gzip, is_here, size):
    loop = Loop(is_here)
    http = HttpReply(loop, head=False, keep_alive=True)
    form = reply_form({"accept-encoding": "gzip"} if gzip else {}, ())
    assert RestReply(http, form, None, loop).send(b"x" * size)
    assert len(loop.jobs) == (gzip and is_here and size > 64 << 10)
    for job in loop.jobs:
        assert not http.payload
        job()
    assert (b"content-encoding: gzip" in http.payload[0]) == gzip


def test_small_elements_are_large_once_they_are_text():
    assert _are_large({"y": np.ones(10_000, np.int8)})
    assert not _are_large({"y": np.ones(8_000, np.int8)})
