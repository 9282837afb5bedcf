"""Calls to a real server: one by one over gRPC and REST, and many at once."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import predict_pb2

from tests.e2e.process import UNLIMITED, Process, request, to_array
from tests.ordinary.entry import Entry, Inputs
from tests.ordinary.findings import Beside
from tests.ordinary.reference import Answer, same

CALLERS = 16
CHANNELS = 4
PREDICT = "/tensorflow.serving.PredictionService/Predict"
TIMEOUT_S = 60


def answered(reply: bytes | str) -> Answer | str:
    """The outputs of a PredictResponse's bytes, by name; an error as it is."""
    if isinstance(reply, str):
        return reply
    outputs = predict_pb2.PredictResponse.FromString(reply).outputs
    return {alias: to_array(outputs[alias]) for alias in sorted(outputs)}


# One by one ---------------------------------------------------------------------------------------


def by_grpc(server: Process, entry: Entry, inputs: Inputs) -> Answer | str:
    """The answer of Predict."""
    with Predictor(server) as predict:
        return answered(predict(message(entry, inputs)))


def by_rest(server: Process, entry: Entry, inputs: Inputs, like: Answer) -> Answer | str:
    """The answer to JSON, as arrays of the types of `like`: instances for odd rows, else inputs."""
    rows = len(next(iter(inputs.values())))
    by_row = rows % 2 == 1
    columns = {alias: _json(array.tolist()) for alias, array in inputs.items()}
    if by_row:
        content = [{alias: column[i] for alias, column in columns.items()} for i in range(rows)]
        body = {"signature_name": entry.signature, "instances": content}
    else:
        body = {"signature_name": entry.signature, "inputs": columns}
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", f"/v1/models/{entry.name}:predict", json.dumps(body))
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    answer = json.loads(text)
    if "error" in answer:
        return str(answer["error"])
    told = answer["predictions"] if by_row else answer["outputs"]
    if len(like) == 1:
        told = dict.fromkeys(like, told)
    elif by_row:
        told = {alias: [row[alias] for row in told] for alias in like}
    return {alias: _array(told[alias], array) for alias, array in like.items()}


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(each) for each in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return value


def _array(value: Any, like: np.ndarray) -> np.ndarray:
    if like.dtype != object:
        return np.asarray(value, like.dtype)
    whole = np.asarray(value, object)
    for place in np.ndindex(whole.shape):
        whole[place] = whole[place].encode()
    return whole


# At once ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A request's bytes, and what the server answered to it while it had nothing else to do."""

    message: bytes
    alone: bytes | str


def message(entry: Entry, inputs: Inputs) -> bytes:
    """A PredictRequest's bytes."""
    return request(entry.name, inputs, signature=entry.signature).SerializeToString()


def one_by_one(server: Process, messages: Sequence[bytes]) -> list[Call]:
    """Make each call while no other is under way."""
    with Predictor(server) as predict:
        return [Call(each, predict(each)) for each in messages]


def at_once(server: Process, calls: Sequence[Call], count: int, seed: int) -> Beside:
    """Make `count` of the calls, 16 at a time, and compare each answer with the one alone."""
    start = threading.Barrier(CALLERS)

    def caller(number: int) -> list[tuple[int, bytes | str]]:
        rng = np.random.default_rng((seed, number))
        chosen = rng.integers(0, len(calls), -(-count // CALLERS)).tolist()
        predict = predictors[number % CHANNELS]
        start.wait(TIMEOUT_S)
        return [(index, predict(calls[index].message)) for index in chosen]

    predictors = [Predictor(server) for _ in range(CHANNELS)]
    try:
        with ThreadPoolExecutor(CALLERS) as pool:
            made = [pair for pairs in pool.map(caller, range(CALLERS)) for pair in pairs]
    finally:
        for predict in predictors:
            predict.close()
    wrong = [(calls[i], reply) for i, reply in made if not _as_alone(calls[i], reply)]
    return Beside(len(made), len(wrong), _told(*wrong[0]) if wrong else "")


def _as_alone(call: Call, reply: bytes | str) -> bool:
    return reply == call.alone or same(answered(call.alone), answered(reply))


def _told(call: Call, reply: bytes | str) -> str:
    return f"alone {shortened(answered(call.alone))}, beside others {shortened(answered(reply))}"


def shortened(answer: Answer | str) -> str:
    """An answer in a few words."""
    text = " ".join(str(answer).split())
    return text if len(text) < 200 else f"{text[:200]}..."


class Predictor:
    """Calls Predict by bytes, on a connection of its own; answers an error with its text."""

    def __init__(self, server: Process) -> None:
        options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options)
        self._call = self._channel.unary_unary(PREDICT)

    def __call__(self, request_bytes: bytes) -> bytes | str:
        try:
            return self._call(request_bytes, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
