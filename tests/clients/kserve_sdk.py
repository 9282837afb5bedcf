"""KServe's inference clients against a server: python kserve_sdk.py GRPC_PORT HTTP_PORT."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

MODEL = "half_plus_two"


def request_of(*, raw: bool) -> InferRequest:
    if not raw:
        tensor = InferInput("x", [3], "FP32", data=[1.0, 2.0, 5.0])
    else:
        tensor = InferInput("x", [3], "FP32")
        tensor.set_data_from_numpy(np.float32([1, 2, 5]))
    return InferRequest(model_name=MODEL, infer_inputs=[tensor], request_id="mine")


async def main() -> None:
    place, base = f"localhost:{sys.argv[1]}", f"http://localhost:{sys.argv[2]}"
    rest, grpc = InferenceRESTClient(RESTConfig(protocol="v2")), InferenceGRPCClient(place)
    found = {
        "rest": {
            "live": await rest.is_server_live(base),
            "ready": await rest.is_server_ready(base),
            "model_ready": await rest.is_model_ready(base, MODEL),
        },
        "grpc": {
            "live": await grpc.is_server_live(),
            "ready": await grpc.is_server_ready(),
            "model_ready": await grpc.is_model_ready(MODEL),
        },
    }
    for raw in (False, True):
        over_rest = await rest.infer(base, data=request_of(raw=raw), model_name=MODEL)
        over_grpc = await grpc.infer(request_of(raw=raw))
        for way, answer in (("rest", over_rest), ("grpc", over_grpc)):
            found[way][f"y, raw={raw}"] = answer.outputs[0].as_numpy().tolist()
            found[way][f"id, raw={raw}"] = answer.id
    await rest.close()
    await grpc.close()
    sys.stdout.write(json.dumps(found))


asyncio.run(main())
