"""What a Predict call costs beside TensorFlow's own part of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from servingd.config.server import ServerConfig
from servingd.core.batching.queue import Priority
from servingd.core.types import ModelSpec
from servingd.frontends.reply import Reply
from servingd.frontends.tfs.rpc.methods import RpcMethods
from servingd.runtime.jobs import JobStore
from servingd.server import Server
from servingd.wire import protos
from servingd.wire.tensors.encoding import encode_as_content
from tests import exports
from tests.bench.measure import Row, ratio


class _Nowhere(Reply):
    """A reply that goes nowhere."""

    deadline = None
    alone = True

    def __init__(self) -> None:
        self.answered = False

    def alive(self) -> bool:
        return True

    def send(self, payload: bytes) -> bool:
        self.answered = True
        return True

    def priority(self) -> Priority:
        return Priority.NORMAL

    def fail(self, code, message, retry_after_s=None) -> bool:
        raise AssertionError(message)


def run(folder: Path) -> Iterator[Row]:
    """A call of half_plus_two, parsed, run, encoded and counted, over the bare callable."""
    exports.half_plus_two(folder / "m" / "1")
    server = Server(
        ServerConfig(
            port=_free_port(),
            model_name="m",
            model_base_path=str(folder / "m"),
            cache_dir="",
        )
    )
    server.start()
    try:
        while not server.states.available():
            time.sleep(0.05)
        methods = RpcMethods(
            server.ports._calls,
            server.states,
            server.control.reload,
            dict,
            None,
            1 << 30,
            JobStore(1 << 20, 60),
        )
        predict = methods.table()["/tensorflow.serving.PredictionService/Predict"]
        x = np.float32([1, 2, 5])
        request = protos.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["x"].MergeFromString(encode_as_content(x, 1))
        payload, reply = request.SerializeToString(), _Nowhere()
        handle = server.worker.models.acquire(ModelSpec("m"))
        session = server.worker.versions._live[handle.id].servable.session
        call = session.calls["serving_default"]._run
        handle.release()

        def whole_call() -> None:
            reply.answered = False
            predict(payload, reply)
            while not reply.answered:  # it waits in a queue: a call before it took long
                time.sleep(0)

        yield Row(
            "a whole Predict call over TensorFlow's callable, 3 floats",
            ratio(whole_call, lambda: call((x,), None), 20_000),
            at_most=5.0,
        )
    finally:
        server.stop()


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
