"""Requests that are nearly right: valid ones, mutated; and random ones of the right structure."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator

import numpy as np

from tests.e2e.process import request

PREDICTION = "/tensorflow.serving.PredictionService/"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
DTYPES = (
    "float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128", "string",
)  # fmt: skip
NAMES = (b"echo", b"half_plus_two", b"examples", b"digit_names", b"x", b"y", b"serving_default")
WORDS = (
    "",
    "echo",
    "half_plus_two",
    "x",
    "y",
    "z",
    "float32",
    "string",
    "b64",
    "é",
    "\0",
    "a" * 300,
)
EDGES = (0, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


# Valid messages -----------------------------------------------------------------------------------


def corpus() -> list[tuple[str, bytes]]:
    """Method and message: every method, every type of tensor, ranks 0 to 4."""
    found = [(f"{PREDICTION}Predict", message) for message in _predicts()]
    found += [(f"{PREDICTION}{name}", message) for name, message in _examples()]
    found += [*_others()] * 3
    return found


def _predicts() -> Iterator[bytes]:
    for dtype in DTYPES:
        for shape in ((), (0,), (3,), (2, 2), (1, 2, 1, 2)):
            array = np.ones(shape, "S3" if dtype == "string" else dtype)
            x = array.astype(object) if dtype == "string" else array
            yield request("echo", {"x": x}, signature=dtype).SerializeToString()
    one, two = np.float32([1, 2, 3]), np.int32([4])
    for filter_ in ((), ("x",), ("sum", "x")):
        message = request("echo", {"x": one.reshape(1, 3), "z": two}, outputs=filter_, version=1)
        yield message.SerializeToString()
    yield from [request("half_plus_two", {"x": one}).SerializeToString()] * 10
    yield request("digit_names", {"keys": np.int64([0, 1, 7])}).SerializeToString()


def _examples() -> Iterator[tuple[str, bytes]]:
    from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

    for name, kind, signature in (
        ("Classify", classification_pb2.ClassificationRequest, "classify"),
        ("Regress", regression_pb2.RegressionRequest, "serving_default"),
    ):
        message = kind()
        message.model_spec.name, message.model_spec.signature_name = "examples", signature
        _fill(message.input)
        yield name, message.SerializeToString()
        yield name, message.SerializeToString()
    multi = inference_pb2.MultiInferenceRequest()
    for method, signature in (("classify", "classify"), ("regress", "serving_default")):
        task = multi.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "examples", signature
    _fill(multi.input)
    yield "MultiInference", multi.SerializeToString()


def _fill(examples) -> None:
    for i in range(2):
        feature = examples.example_list.examples.add().features.feature
        feature["x"].float_list.value.append(i)
        feature["word"].bytes_list.value.append(b"cat")


def _others() -> Iterator[tuple[str, bytes]]:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
    )

    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "echo"
    yield STATUS, status.SerializeToString()
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "echo"
    yield f"{PREDICTION}GetModelMetadata", metadata.SerializeToString()
    reload_ = model_management_pb2.ReloadConfigRequest()
    reload_.config.model_config_list.config.add(name="m", base_path="/m")
    yield RELOAD, reload_.SerializeToString()


# Bytes --------------------------------------------------------------------------------------------


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One small change, or some."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_MUTATIONS)(rng, data, rng.choice(others))
    return data[:65_536]


def _flip(rng, data, _):
    at = rng.randrange(len(data) or 1)
    return (
        data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :] if data else data
    )


def _insert(rng, data, _):
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]


def _delete(rng, data, _):
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.randint(1, 8) :]


def _truncate(rng, data, _):
    return data[: rng.randint(0, len(data))]


def _splice(rng, data, other):
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _duplicate(rng, data, _):
    at = rng.randint(0, len(data))
    return data[:at] + data[at : at + rng.randint(1, 64)] * rng.randint(2, 4) + data[at:]


def _tweak(rng, data, _):
    at = rng.randint(0, len(data))
    return data[:at] + varint(rng.choice(EDGES)) + data[at + 1 :]


_MUTATIONS: list[Callable] = [_flip, _insert, _delete, _truncate, _splice, _duplicate, _tweak]


# Protobuf by its structure ------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    return varint(number << 3 | 2) + varint(len(value)) + value


def random_tensor(rng: random.Random) -> bytes:
    """A TensorProto whose parts need not fit each other."""
    dims = [rng.choice((0, 1, 2, 3, 3, 5, 7, -1)) for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.05:
        dims.append(rng.choice(EDGES))
    shape = b"".join(field(2, field(1, size)) for size in dims)
    shape += field(3, 1) if rng.random() < 0.02 else b""
    parts = [field(1, rng.choice((rng.randint(0, 30), 1, 3, 7, 9))), field(2, shape)]
    if rng.random() < 0.5:
        parts.append(field(4, rng.randbytes(rng.choice((0, 1, 4, 8, 12, 24)))))
    for _ in range(rng.randint(0, 3)):
        number = rng.randint(5, 17)
        value = rng.choice((rng.randbytes(rng.choice((4, 8, 12))), rng.choice(EDGES)))
        parts.append(field(number, value))
    rng.shuffle(parts)
    return b"".join(parts)


def random_predict(rng: random.Random) -> bytes:
    """A PredictRequest with random tensors for random names."""
    name = rng.choice(NAMES[:4])
    spec = field(1, name) + field(3, rng.choice(DTYPES).encode())
    if rng.random() < 0.2:
        spec += field(2, field(1, rng.choice(EDGES)))
    parts = [field(1, spec)]
    for _ in range(rng.randint(0, 3)):
        parts.append(field(2, field(1, rng.choice(NAMES)) + field(2, random_tensor(rng))))
    if rng.random() < 0.1:
        parts.append(field(3, rng.choice(NAMES)))
    return b"".join(parts)


def random_message(rng: random.Random, depth: int = 0) -> bytes:
    """Any fields, nested."""
    out = b""
    for _ in range(rng.randint(0, 4)):
        choice = rng.random()
        if choice < 0.4 and depth < 5:
            value: int | bytes = random_message(rng, depth + 1)
        elif choice < 0.7:
            value = rng.choice((rng.choice(NAMES), rng.randbytes(rng.randint(0, 9))))
        else:
            value = rng.choice(EDGES)
        out += field(rng.randint(1, 8), value)
    return out


# JSON ---------------------------------------------------------------------------------------------

DOCUMENTS = [
    (f"/v1/models/{target}", json.dumps(document).encode())
    for target, document in (
        ("half_plus_two:predict", {"instances": [1.0, 2.0, 5.0]}),
        ("half_plus_two/versions/1:predict", {"inputs": {"x": [1, 2, 5]}}),
        ("echo:predict", {"inputs": {"x": [[1, 2, 3]], "z": [4]}}),
        ("echo:predict", {"signature_name": "string", "instances": ["a", "é\n"]}),
        ("echo:predict", {"signature_name": "string", "instances": [{"b64": "YWJj"}]}),
        ("echo:predict", {"signature_name": "int64", "inputs": [-(2**63), 2**63 - 1]}),
        ("echo:predict", {"signature_name": "uint8", "inputs": [[0, 255], [1, 2]]}),
        ("echo:predict", {"signature_name": "bool", "instances": [[True], [False]]}),
        ("echo:predict", {"signature_name": "float64", "inputs": [[[1e300, -0.0, 1e-320]]]}),
        ("echo:predict", {"signature_name": "fixed", "instances": [[1, 2, 3], [4, 5, 6]]}),
        ("echo:predict", {"instances": [{"x": [1, 2, 3], "z": 4}]}),
        ("examples:regress", {"context": {"word": "cat"}, "examples": [{"x": 2.0}, {"x": [4]}]}),
        ("examples:classify", {"signature_name": "classify", "examples": [{"x": 1.5}]}),
        ("digit_names:predict", {"instances": [0, 1]}),
    )
]
_TOKENS = (
    b'"', b"[", b"]", b"{", b"}", b",", b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999",
    b"-0", b"1.5", b"99999999999999999999", b"\\u0000", b"\\ud800", b'{"b64": "!"}', b"\xff",
    b'"instances"', b'"inputs"', b'"signature_name"', b"[[[[[[[[", b" ",
)  # fmt: skip


def mutated_json(rng: random.Random, text: bytes) -> bytes:
    """A document whose text is changed in places, or not at all."""
    for _ in range(rng.randint(0, 3)):
        at = rng.randint(0, len(text))
        skip = rng.choice((0, 0, 1, 5))
        text = text[:at] + rng.choice(_TOKENS) + text[at + skip :]
    return text


def random_json(rng: random.Random) -> bytes:
    """A valid document of nonsense."""
    body = {rng.choice(("instances", "inputs", "examples", "context", *WORDS)): _value(rng, 0)}
    if rng.random() < 0.6:
        body["signature_name"] = rng.choice((*DTYPES, "fixed", "classify", "serving_default"))
    return json.dumps(body).encode()


def _value(rng: random.Random, depth: int):
    kind = rng.random()
    if kind < 0.4 and depth < 4:
        return [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind < 0.6 and depth < 4:
        return {rng.choice(WORDS): _value(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return rng.choice((None, True, 0, -1, 1.5, 1e300, 2**63, 2**64, rng.choice(WORDS)))


# HTTP ---------------------------------------------------------------------------------------------

TARGETS = (
    "/v1/models/echo:predict", "/v1/models/half_plus_two:predict", "/v1/models/examples:classify",
    "/v1/models/examples:regress", "/v1/models/digit_names:predict", "/v1/models",
    "/v1/models/echo/versions/1:predict", "/v1/models/echo/labels/stable:predict", "/livez",
    "/v1/models/echo/versions/1/metadata", "/servingd/v1/models/echo", "/readyz",
)  # fmt: skip
_URL_PARTS = (
    "/", ":", "%", "%ff", "%00", "%2F", "?", "#", "versions", "labels", "9" * 5000, "metadata",
    "v1", "models", "echo", "predict", "..", "//", "@", "x" * 300,
)  # fmt: skip
_HEADERS = (
    "content-type: application/x-protobuf", "content-type: text/\xe9", "content-encoding: gzip",
    "accept-encoding: gzip", "accept: */*", "origin: null", "x: \xff", "content-encoding: zstd",
)  # fmt: skip


def http_request(rng: random.Random, messages: list[bytes]) -> bytes:
    """A request that keeps HTTP's rules, to one of our routes or near one."""
    target, body = rng.choice(DOCUMENTS)
    headers = [rng.choice(_HEADERS)] if rng.random() < 0.1 else []
    kind = rng.random()
    if kind < 0.6:
        body = mutated_json(rng, body)
    elif kind < 0.8:
        body = random_json(rng)
    else:
        body = mutated(rng, rng.choice(messages), messages)
        headers.append(_HEADERS[0])
    if rng.random() < 0.2:
        target = rng.choice(TARGETS)
        at = rng.randint(1, len(target))
        target = target[:at] + rng.choice(_URL_PARTS) + target[at + rng.randint(0, 3) :]
    method = "POST" if rng.random() < 0.9 else rng.choice(("GET", "PUT", "OPTIONS", "DELETE"))
    lines = [f"{method} {target} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def broken_http(rng: random.Random, messages: list[bytes]) -> bytes:
    """A request whose bytes are changed wherever it may be."""
    whole = http_request(rng, messages)
    return mutated(
        rng, whole[: 300 + rng.randint(0, 100)], [whole, b"\r\n\r\n", struct.pack(">Q", 1)]
    )
