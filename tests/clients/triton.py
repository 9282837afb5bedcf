"""tritonclient against a server: python triton.py GRPC_PORT HTTP_PORT CALLS."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

X = np.float32([1, 2, 5])
WANTED = [2.5, 3.0, 4.5]


def floats(module):
    tensor = module.InferInput("x", [3], "FP32")
    tensor.set_data_from_numpy(X)
    return [tensor]


def texts(module):
    tensor = module.InferInput("keys", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([b"0", b"1"], object))
    return [tensor]


def error_of(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def walk(module, place):
    """Everything that the client can ask of the server."""
    client = module.InferenceServerClient(place)
    infer = client.infer
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("half_plus_two"),
        "version_ready": client.is_model_ready("half_plus_two", "1"),
        "no_such_version": client.is_model_ready("half_plus_two", "9"),
        "y": infer("half_plus_two", floats(module)).as_numpy("y").tolist(),
        "of_version": infer("half_plus_two", floats(module), "1").as_numpy("y").tolist(),
        "one_output": infer(
            "half_plus_two", floats(module), outputs=[module.InferRequestedOutput("y")]
        )
        .as_numpy("y")
        .tolist(),
        "texts": [t.decode() for t in infer("digit_names", texts(module)).as_numpy("values")],
        "wrong_input": error_of(lambda: infer("half_plus_two", texts(module))),
        "no_model": error_of(lambda: infer("nobody", floats(module))),
        "no_output": error_of(
            lambda: infer(
                "half_plus_two", floats(module), outputs=[module.InferRequestedOutput("z")]
            )
        ),
        "sequence": error_of(lambda: infer("half_plus_two", floats(module), sequence_id=7)),
        "with_limits": infer("half_plus_two", floats(module), priority=1, timeout=10_000_000)
        .as_numpy("y")
        .tolist(),
    }
    answer = infer("half_plus_two", floats(module), request_id="mine").get_response()
    found["id"] = answer["id"] if isinstance(answer, dict) else answer.id
    if module is over_http:
        found["server"] = client.get_server_metadata()
        found["metadata"] = client.get_model_metadata("half_plus_two")
        found["index"] = client.get_model_repository_index()
        plain = module.InferInput("x", [3], "FP32")
        plain.set_data_from_numpy(X, binary_data=False)
        wanted = [module.InferRequestedOutput("y", binary_data=False)]
        found["as_json"] = infer("half_plus_two", [plain], outputs=wanted).as_numpy("y").tolist()
        packed = infer(
            "half_plus_two",
            floats(module),
            request_compression_algorithm="gzip",
            response_compression_algorithm="gzip",
        )
        found["gzip"] = packed.as_numpy("y").tolist()
    else:
        found["server"] = client.get_server_metadata(as_json=True)
        found["metadata"] = client.get_model_metadata("half_plus_two", as_json=True)
        found["index"] = client.get_model_repository_index(as_json=True)["models"]
    return found


def many(module, place, calls):
    """So many calls, one after the other; return how many had another answer or an error."""
    client, inputs, wrong = module.InferenceServerClient(place), floats(module), 0
    for _ in range(calls):
        try:
            wrong += client.infer("half_plus_two", inputs).as_numpy("y").tolist() != WANTED
        except InferenceServerException:
            wrong += 1
    return wrong


async def together(module, place, calls):
    """So many calls at once."""
    async with module.InferenceServerClient(place) as client:
        answers = await asyncio.gather(
            *(client.infer("half_plus_two", floats(module)) for _ in range(calls))
        )
    return sum(answer.as_numpy("y").tolist() != WANTED for answer in answers)


def main():
    grpc_place, http_place = (f"localhost:{port}" for port in sys.argv[1:3])
    calls = int(sys.argv[3])
    result = {
        "grpc": walk(over_grpc, grpc_place),
        "http": walk(over_http, http_place),
        "wrong": {
            "grpc": many(over_grpc, grpc_place, calls),
            "http": many(over_http, http_place, calls),
            "grpc.aio": asyncio.run(together(over_grpc_aio, grpc_place, 50)),
            "http.aio": asyncio.run(together(over_http_aio, http_place, 50)),
        },
    }
    sys.stdout.write(json.dumps(result))


main()
