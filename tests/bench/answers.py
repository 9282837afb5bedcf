"""What writing an answer costs beside its floor: one copy for gRPC, orjson's numbers for REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from servingd.core.types import DataType, TensorSpec
from servingd.wire.json.results import encode_predictions
from servingd.wire.tensors.encoding import encode_model_spec, encode_predict_response
from servingd.wire.tensors.types import data_type_of
from tests.bench.measure import Row, ratio


def run(folder: Path) -> Iterator[Row]:
    """Large outputs, strings and many outputs, without a network."""
    rng = np.random.default_rng(0)
    tail = encode_model_spec("m", 1, "serving_default")
    for kib, times in ((32, 2000), (256, 200), (4096, 5)):
        outputs = {"y": rng.random((kib * 2, 128), np.float32)}
        yield from _rows(f"{kib} KiB of floats", outputs, tail, times, grpc=1.6, rest=2.0)
    many = {f"output_{i:02}": rng.random(50, np.float32) for i in range(100)}
    yield from _rows("100 outputs of 50 floats", many, tail, 50, grpc=8.0, rest=6.0)
    short = {"y": np.array([b"category-%011d" % i for i in range(1000)], object)}
    yield from _rows("1,000 strings of 20 bytes", short, tail, 100, grpc=1.3, rest=5.0)
    long = {"y": np.array([b"x" * (1 << 20)], object)}
    yield from _rows("a string of 1 MiB", long, tail, 20, grpc=2.0, rest=12.0)


def _rows(
    what: str, outputs: dict, tail: bytes, times: int, *, grpc: float, rest: float
) -> Iterator[Row]:
    data_type = data_type_of(next(iter(outputs.values())).dtype)
    specs = {alias: TensorSpec(data_type, None) for alias in outputs}
    joined = _floor_of_strings if data_type is DataType.STRING else _floor_of_numbers
    yield Row(
        f"gRPC, {what}, over one join",
        ratio(
            lambda: encode_predict_response(outputs, specs, tail), lambda: joined(outputs), times
        ),
        at_most=grpc,
    )
    yield Row(
        f"REST, {what}, over orjson",
        ratio(
            lambda: encode_predictions(outputs, specs, False),
            lambda: orjson.dumps(_plain(outputs), option=orjson.OPT_SERIALIZE_NUMPY),
            max(1, times // 10),
        ),
        at_most=rest,
    )


def _floor_of_numbers(outputs: dict) -> bytes:
    return b"".join([part for array in outputs.values() for part in (b"head", array)])


def _floor_of_strings(outputs: dict) -> bytes:
    (array,) = outputs.values()
    return b"".join([part for string in array.tolist() for part in (b"\x42\x14", string)])


def _plain(outputs: dict) -> dict:
    return {
        alias: [string.decode() for string in value.tolist()] if value.dtype == object else value
        for alias, value in outputs.items()
    }
