"""Ranking over REST: rows of a hundred named features, beside what reading and running must cost.

The floor is one loop of orjson, numpy and TensorFlow's callable, without HTTP, batching, metrics
or checks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson

from tests.bench.measure import Row, ratio
from tests.bench.serving import serving, settled

FEATURES, CANDIDATES = 50, 50
"""Features of each kind (ids and numbers), and rows."""
TIMES = 100


def run(folder: Path) -> Iterator[Row]:
    """A whole call over a connection, over the floor, by rows and by columns."""
    path = folder / "models" / "ranking" / "1"
    features = _export(path)
    rows, columns = _bodies(features)
    floors = _Floor(path, features)
    with serving(folder / "server.log", f"--model_repository={folder / 'models'}") as server:
        settled(server, "ranking")
        with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for what, body, floor in (
                ("rows", rows, floors.by_rows),
                ("columns", columns, floors.by_columns),
            ):
                call = _caller(connection, body)
                _agree(orjson.loads(call()), orjson.loads(floor(body)))
                measured = ratio(call, lambda body=body, floor=floor: floor(body), TIMES)
                yield Row(
                    f"ranking over REST, {what}, over orjson, numpy and the callable",
                    measured,
                    at_most=1.0,
                )


class _Floor:
    """The same calls without a server."""

    def __init__(self, path: Path, features: dict[str, np.dtype]) -> None:
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))
        self._kept = loaded
        self._features = features
        graph = loaded.signatures["serving_default"]
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        concrete = convert_variables_to_constants_v2(graph)
        frozen = tf.compat.v1.Session(graph=concrete.graph)
        by_name = {t.name.split(":")[0]: t.name for t in concrete.inputs}
        self._order = list(features)
        self._call = frozen.make_callable(
            [concrete.outputs[0].name], feed_list=[by_name[name] for name in self._order]
        )

    def by_rows(self, body: bytes) -> bytes:
        rows = orjson.loads(body)["instances"]
        return self._answer(
            [
                np.array([row[name] for row in rows], dtype)
                for name, dtype in self._features.items()
            ],
            "predictions",
        )

    def by_columns(self, body: bytes) -> bytes:
        inputs = orjson.loads(body)["inputs"]
        return self._answer(
            [np.array(inputs[name], dtype) for name, dtype in self._features.items()], "outputs"
        )

    def _answer(self, arrays: list[np.ndarray], key: str) -> bytes:
        (scores,) = self._call(*arrays)
        return orjson.dumps({key: scores}, option=orjson.OPT_SERIALIZE_NUMPY)


def _export(path: Path) -> dict[str, np.dtype]:
    """Write a model of embeddings and numbers; return the type of each input."""
    import tensorflow as tf

    ids = [f"id_{i:02}" for i in range(FEATURES)]
    numbers = [f"number_{i:02}" for i in range(FEATURES)]
    module = tf.Module()
    module.table = tf.Variable(tf.random.normal([1000, 8], seed=1))
    module.weights = tf.Variable(tf.random.normal([8 + FEATURES, 1], seed=2))

    def score(**features):
        found = [tf.gather(module.table, features[name][:, 0] % 1000) for name in ids]
        values = tf.concat([features[name] for name in numbers], 1)
        return {"y": tf.concat([tf.add_n(found), values], 1) @ module.weights}

    specs = {name: tf.TensorSpec([None, 1], tf.int64, name=name) for name in ids}
    specs |= {name: tf.TensorSpec([None, 1], tf.float32, name=name) for name in numbers}
    module.score = tf.function(score)
    concrete = module.score.get_concrete_function(**specs)
    tf.saved_model.save(module, str(path), signatures=concrete)
    return {name: np.dtype(spec.dtype.as_numpy_dtype) for name, spec in specs.items()}


def _bodies(features: dict[str, np.dtype]) -> tuple[bytes, bytes]:
    """The same request as rows and as columns."""
    rng = np.random.default_rng(1)
    columns = {
        name: (
            rng.integers(0, 10**9, [CANDIDATES, 1])
            if dtype == np.int64
            else rng.random([CANDIDATES, 1]).round(6)
        ).tolist()
        for name, dtype in features.items()
    }
    rows = [{name: column[i] for name, column in columns.items()} for i in range(CANDIDATES)]
    return orjson.dumps({"instances": rows}), orjson.dumps({"inputs": columns})


def _caller(connection: socket.socket, body: bytes) -> Callable[[], bytes]:
    """A call over an open connection: the answer's body."""
    request = (
        b"POST /v1/models/ranking:predict HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body

    def call() -> bytes:
        connection.sendall(request)
        answer = connection.recv(1 << 16)
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1 << 16)
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer[:500]
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += connection.recv(1 << 16)
        return rest

    return call


def _agree(ours: dict, floor: dict) -> None:
    """Both answer alike, but for the key and for arithmetic."""
    (own,), (wanted,) = ours.values(), floor.values()
    assert np.allclose(np.array(own), np.array(wanted), rtol=1e-4, atol=1e-4)
