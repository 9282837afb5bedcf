"""The Open Inference Protocol over TensorFlow Serving's API: calls a second, in one server."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from servingd.wire import protos
from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, message, serving, settled
from tests.exports import half_plus_two

INFER = "/inference.GRPCInferenceService/ModelInfer"


def run(folder: Path) -> Iterator[Row]:
    """Calls a second of a tiny model with raw contents over those of Predict."""
    half_plus_two(folder / "models" / "half_plus_two" / "1")
    with serving(folder / "server.log", f"--model_repository={folder / 'models'}") as server:
        settled(server, "half_plus_two")
        x = np.float32([1, 2, 5])
        predict, infer = message(folder, "half_plus_two", {"x": x}), folder / "infer"
        request = protos.ModelInferRequest(model_name="half_plus_two")
        request.inputs.add(name="x", datatype="FP32", shape=[3])
        request.raw_input_contents.append(x.tobytes())
        infer.write_bytes(request.SerializeToString())
        for calls in (64, 1):
            ratios = []
            for _ in range(ROUNDS):
                ours = load.run(server.port, infer, SECONDS, calls=calls, method=INFER)
                theirs = load.run(server.port, predict, SECONDS, calls=calls)
                assert ours.codes.keys() == theirs.codes.keys() == {"OK"}
                ratios.append(ours.rate / theirs.rate)
                print(calls, round(ours.rate), round(theirs.rate))
            ratio = statistics.median(ratios)
            yield Row(f"OIP over Predict, {calls} calls at a time", ratio, at_least=0.9)
