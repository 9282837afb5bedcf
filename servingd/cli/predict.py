"""The command `predict`: call a model once from the shell, JSON in and out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servingd.cli.predict_inputs import example, inputs_of, read_text
from servingd.errors import Code, InvalidArgument, ServingError

_TYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "long": np.int64}

_IS_IT_THERE = "does a server listen at {}? --target names the place of its gRPC port"


def predict(arguments: Sequence[str]) -> int:
    """Call a model once and print its outputs; return the exit status."""
    parser = argparse.ArgumentParser(prog="servingd predict", description=__doc__)
    parser.add_argument("model")
    parser.add_argument(
        "inputs",
        nargs="?",
        help='JSON: inputs by name, such as {"x": [1, 2, 5]}, or the value of the only one; '
        "@FILE or - (stdin) has them read; left out: show what inputs there are",
    )
    parser.add_argument("--target", default="localhost:8500", help="host:port (%(default)s)")
    parser.add_argument("--signature", default="", help="signature (serving_default)")
    parser.add_argument("--version", type=int, help="version (the latest)")
    parser.add_argument("--numbers", choices=_TYPES, default="float", help="type (%(default)s)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(_answer(options) + "\n")
    except (ServingError, OSError, ValueError) as error:
        code = error.code if isinstance(error, ServingError) else Code.INVALID_ARGUMENT
        hint = f"; {_IS_IT_THERE}" if code is Code.UNAVAILABLE else ""
        sys.stderr.write(f"{code.name}: {error}{hint.format(options.target)}\n")
        return 1
    return 0


def _answer(options: argparse.Namespace) -> str:
    """Return the outputs as JSON; without inputs, return what can be typed."""
    from servingd.client import Client

    spec = {"version": options.version, "signature": options.signature}
    with Client(_target(options.target)) as client:

        def kinds() -> Mapping[str, str]:
            return client.inputs(options.model, timeout_s=options.timeout, **spec)

        if options.inputs is None:
            known = kinds()
            listed = ", ".join(f"{name} ({kind})" for name, kind in known.items()) or "none"
            return f"inputs: {listed}\nsuch as: {example(options.model, known)}"
        typed = inputs_of(options.model, read_text(options.inputs), kinds)
        inputs = {name: _array(value, options.numbers) for name, value in typed.items()}
        outputs = client.predict(options.model, inputs, timeout_s=options.timeout, **spec)
    return json.dumps({k: _plain(v) for k, v in outputs.items()}, separators=(",", ":"))


def _target(text: str) -> str:
    """Return the gRPC port's address. Raises InvalidArgument for an address of the REST API."""
    target = text.removeprefix("grpc://").rstrip("/")
    if target.startswith(("http://", "https://")):
        raise InvalidArgument(
            f"--target: expected host:port of gRPC, such as localhost:8500, got {text}"
        )
    return target


def _array(value: Any, numbers: str) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    return array if array.dtype.kind == "b" else array.astype(_TYPES[numbers])


def _plain(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype == object:
        return np.vectorize(lambda b: b.decode(errors="replace"), otypes=[object])(array).tolist()
    return array.tolist()
