"""The command `predict`: one call from the shell, JSON in and out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from servingd.errors import ServingError

_TYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "long": np.int64}


def predict(arguments: Sequence[str]) -> int:
    """Call a model once and print its outputs; return the exit status."""
    parser = argparse.ArgumentParser(prog="servingd predict", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("inputs", help='JSON object of inputs, such as {"x": [1, 2, 5]}')
    parser.add_argument("--target", default="localhost:8500", help="host:port (%(default)s)")
    parser.add_argument("--signature", default="", help="signature (serving_default)")
    parser.add_argument("--version", type=int, help="version (the latest)")
    parser.add_argument("--numbers", choices=_TYPES, default="float", help="type (%(default)s)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds (%(default)s)")
    options = parser.parse_args(arguments)
    from servingd.client import Client

    try:
        inputs = {k: _array(v, options.numbers) for k, v in json.loads(options.inputs).items()}
        with Client(options.target) as client:
            outputs = client.predict(
                options.model,
                inputs,
                version=options.version,
                signature=options.signature,
                timeout_s=options.timeout,
            )
    except (ServingError, ValueError, AttributeError) as error:
        code = error.code.name if isinstance(error, ServingError) else "INVALID_ARGUMENT"
        sys.stderr.write(f"{code}: {error}\n")
        return 1
    sys.stdout.write(json.dumps({k: _plain(v) for k, v in outputs.items()}, separators=(",", ":")))
    sys.stdout.write("\n")
    return 0


def _array(value: Any, numbers: str) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    return array if array.dtype.kind == "b" else array.astype(_TYPES[numbers])


def _plain(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype == object:
        return np.vectorize(lambda b: b.decode(errors="replace"), otypes=[object])(array).tolist()
    return array.tolist()
