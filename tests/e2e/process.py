"""The real process, and the clients that we did not write."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "upb"
import grpc
import numpy as np
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

START_S = int(os.environ.get("START_S", "60"))
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

_FIRST_PORT = 10_000 + 2_500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_PORTS = itertools.cycle(random.sample(range(_FIRST_PORT, _FIRST_PORT + 2_500), 2_500))
"""Ports below those that the kernel gives to clients, in a range of this worker's own: nobody takes
one between the look at it and the start of the server."""


def free_port() -> int:
    """A port that nobody listens at, and that was not given to another server lately."""
    for port in _PORTS:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("", port))
            return port
    raise AssertionError("no port is free")


class Process:
    """One servingd, from start to exit."""

    def __init__(
        self,
        log: Path,
        *flags: str,
        prefix: tuple[str, ...] = (),
        path: Path | None = None,
        **environment: str,
    ) -> None:
        self.port, self.http_port = free_port(), free_port()
        self.workers = 1
        self.log = log
        command = [
            *prefix,
            sys.executable,
            "-m",
            "servingd",
            "serve",
            *([str(path)] if path else []),
        ]
        command += [f"--port={self.port}", f"--rest_api_port={self.http_port}", *flags]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env={**os.environ, "SERVINGD_CACHE_DIR": str(log.parent / "cache"), **environment},
            )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=UNLIMITED)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    # HTTP -----------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait_for(self, what: str, check, seconds: float = START_S):
        """Ask until the check holds; fail with the log's end if it never does."""
        deadline = time.monotonic() + seconds
        last = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server has ended:\n{self.tail()}"
            try:
                last = check()
                if last:
                    return last
            except OSError as error:
                last = error
            time.sleep(0.02)  # the process under test tells nobody when it is there
        raise AssertionError(f"{what} did not happen within {seconds} s: {last}\n{self.tail()}")

    def wait_until_ready(self) -> Process:
        self.wait_for("readiness", lambda: self.get("/readyz")[0] == 200)
        return self

    def metric(self, line: str) -> float | None:
        """The value of a series, given as it is printed."""
        for text in self.get("/metrics")[1].splitlines():
            if text.startswith(line + " "):
                return float(text.rsplit(" ", 1)[1])
        return None

    # gRPC -----------------------------------------------------------------------------------------

    def predict(self, model: str, inputs: dict, timeout: float = 30, **spec):
        """Call Predict; return the outputs as arrays."""
        answer = self.prediction.Predict(request(model, inputs, **spec), timeout=timeout)
        return {name: to_array(tensor) for name, tensor in answer.outputs.items()}

    def states(self, model: str) -> dict[int, str]:
        """Version to state, as GetModelStatus tells them."""
        ask = get_model_status_pb2.GetModelStatusRequest()
        ask.model_spec.name = model
        try:
            answer = self.model.GetModelStatus(ask, timeout=10)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        state = get_model_status_pb2.ModelVersionStatus.State
        return {s.version: state.Name(s.state) for s in answer.model_version_status}

    def metadata(self, model: str):
        """The answer of GetModelMetadata."""
        ask = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        ask.model_spec.name = model
        return self.prediction.GetModelMetadata(ask, timeout=10)

    # The end --------------------------------------------------------------------------------------

    def terminate(self) -> int:
        """Ask it to stop; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.terminate()

    def tail(self) -> str:
        return self.log.read_text()[-4000:]


KEYS = {"keys": np.array([b"1"], object)}
"""What a lookup table is asked."""


def lookup_table(version: Path, one: str = "one") -> None:
    """A model without TensorFlow, for what is no matter of models: its server starts at once."""
    version.mkdir(parents=True)
    (version / "table.csv").write_text(f"1,{one}\n")


def memory_mib(server: Process) -> float:
    """What the server holds of real memory."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def request(model: str, inputs: dict, *, signature: str = "", version=None, outputs=()):
    """A PredictRequest; inputs are arrays, or TensorProtos as they are."""
    import tensorflow as tf

    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    if version is not None:
        message.model_spec.version.value = version
    for name, value in inputs.items():
        plain = hasattr(value, "dtype") and not hasattr(value, "tensor_shape")
        made = plain or isinstance(value, (list, float, int, str, bytes))
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value) if made else value)
    message.output_filter.extend(outputs)
    return message


def to_array(tensor) -> np.ndarray:
    import tensorflow as tf

    return tf.make_ndarray(tensor)
