"""Calls of a signature to copy and paste: by curl, Python, and TensorFlow Serving's stubs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from servingd.client.answers import Signature, TensorSpec

_SHORT = 16
"""Values of an input, at most, that are written out; longer ones are made by an expression."""

_VALUES: Mapping[str, Any] = {
    "STRING": "text",
    "BOOL": False,
    "FLOAT": 1.0,
    "DOUBLE": 1.0,
    "HALF": 1.0,
    "BFLOAT16": 1.0,
}
_WHOLE = 1
_EXAMPLES = ("classify", "regress")


def call_examples(model: str, name: str, signature: Signature) -> Mapping[str, str]:
    """Return commands and programs that call a signature, by the way they do it."""
    verb = signature.method.rpartition("/")[2]
    if verb in _EXAMPLES:
        return _of_examples(model, name, verb)
    inputs = {alias: _expression(spec) for alias, spec in sorted(signature.inputs.items())}
    body = ", ".join(f"{json.dumps(alias)}: {value}" for alias, value in inputs.items())
    option = "" if name == "serving_default" else f", signature={name!r}"
    return {
        "shell": _shell(model, name, signature),
        "curl": _curl(model, name, signature),
        "Python, with servingd.client": "\n".join(
            (
                "from servingd.client import Client",
                "",
                'with Client("localhost:8500") as client:',
                f"    print(client.predict({model!r}, {{{body}}}{option}))",
            )
        ),
        "Python, with tensorflow-serving-api": _stubs(model, name, signature, inputs),
    }


def _shell(model: str, name: str, signature: Signature) -> str:
    option = "" if name == "serving_default" else f" --signature {shlex.quote(name)}"
    command = f"servingd predict {shlex.quote(model)}"
    values = {alias: _literal(spec) for alias, spec in sorted(signature.inputs.items())}
    if _is_short(signature):
        return f"{command} {shlex.quote(json.dumps(values))}{option}"
    return f"{_printed(_dict(signature))} | {command} -{option}"


def _curl(model: str, name: str, signature: Signature) -> str:
    url = f"localhost:8501/v1/models/{shlex.quote(model)}:predict"
    signed = {} if name == "serving_default" else {"signature_name": name}
    if _is_short(signature):
        values = {alias: _literal(spec) for alias, spec in sorted(signature.inputs.items())}
        return f"curl {url} -d {shlex.quote(json.dumps({**signed, 'inputs': values}))}"
    named = "".join(f"{json.dumps(key)}: {json.dumps(value)}, " for key, value in signed.items())
    body = f'{{{named}"inputs": {_dict(signature)}}}'
    return f"{_printed(body)} | curl {url} -d @-"


def _printed(expression: str) -> str:
    """Return the command that prints the JSON of a Python expression."""
    return f"python3 -c {shlex.quote(f'import json; print(json.dumps({expression}))')}"


def _dict(signature: Signature) -> str:
    parts = (
        f"{json.dumps(alias)}: {_expression(spec)}"
        for alias, spec in sorted(signature.inputs.items())
    )
    return f"{{{', '.join(parts)}}}"


def _stubs(model: str, name: str, signature: Signature, inputs: Mapping[str, str]) -> str:
    lines = [
        "import grpc, tensorflow as tf",
        "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc",
        "",
        "request = predict_pb2.PredictRequest()",
        f"request.model_spec.name = {model!r}",
        f"request.model_spec.signature_name = {name!r}",
    ]
    for alias, spec in sorted(signature.inputs.items()):
        dtype = f"tf.{_tf_name(spec.dtype)}"
        lines.append(
            f"request.inputs[{alias!r}].CopyFrom(tf.make_tensor_proto({inputs[alias]}, {dtype}))"
        )
    lines += [
        'channel = grpc.insecure_channel("localhost:8500")',
        "stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)",
        "print(stub.Predict(request, timeout=10))",
    ]
    return "\n".join(lines)


def _tf_name(dtype: str) -> str:
    return {"FLOAT": "float32", "DOUBLE": "float64", "HALF": "float16"}.get(dtype, dtype.lower())


def _of_examples(model: str, name: str, verb: str) -> Mapping[str, str]:
    """Return calls of Classify or Regress: the features are the model's own, and unknown here."""
    signed = "" if name == "serving_default" else f', "signature_name": {json.dumps(name)}'
    body = f'{{"examples": [{{"FEATURE": 1.0}}]{signed}}}'
    url = f"localhost:8501/v1/models/{shlex.quote(model)}:{verb}"
    option = "" if name == "serving_default" else f", signature={name!r}"
    return {
        "curl (put the model's features in)": f"curl {url} -d {shlex.quote(body)}",
        "Python, with servingd.client (put the model's features in)": "\n".join(
            (
                "from servingd.client import Client",
                "",
                'with Client("localhost:8500") as client:',
                f'    print(client.{verb}({model!r}, [{{"FEATURE": 1.0}}]{option}))',
            )
        ),
    }


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    """Return a shape that fits: one row; one value along other open dimensions."""
    return (1,) if spec.shape is None else tuple(size or 1 for size in spec.shape)


def _count(spec: TensorSpec) -> int:
    count = 1
    for size in _sizes(spec):
        count *= size
    return count


def _is_short(signature: Signature) -> bool:
    return sum(map(_count, signature.inputs.values())) <= _SHORT


def _literal(spec: TensorSpec) -> Any:
    value: Any = _VALUES.get(spec.dtype, _WHOLE)
    for size in reversed(_sizes(spec)):
        value = [value] * size
    return value


def _expression(spec: TensorSpec) -> str:
    """Return a Python expression of a value: written out if it is short."""
    if _count(spec) <= _SHORT:
        return repr(_literal(spec)).replace("'", '"')
    text = repr(_VALUES.get(spec.dtype, _WHOLE))
    for size in reversed(_sizes(spec)):
        text = f"[{text}]" if size == 1 else f"[{text}] * {size}"
    return text
