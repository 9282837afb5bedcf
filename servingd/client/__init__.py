"""The light client: call servingd, or any TensorFlow Serving, with arrays in and out.

It needs numpy, grpcio, protobuf and ml_dtypes, and never TensorFlow; gRPC is imported when a client
of it is made. A complete program:

    import numpy as np
    from servingd.client import Client

    with Client("localhost:8500") as client:  # or "http://localhost:8501"
        print(client.status("half_plus_two"))  # {1: 'AVAILABLE'}
        print(client.metadata("half_plus_two").signatures["serving_default"].inputs)
        outputs = client.predict("half_plus_two", {"x": [1.0, 2.0, 5.0]})
        print(outputs["y"])  # [2.5 3.  4.5], float32
        client.predict("half_plus_two", np.float32([1, 2]), label="stable", timeout_s=0.5)

and within asyncio:

    async with AsyncClient("localhost:8500", connections=8) as client:
        answers = await asyncio.gather(*(client.predict("half_plus_two", x) for x in rows))
        async for part in client.stream("generator", {"text": ["Once"]}):
            print(part["token"])

Errors are those of `servingd.errors`: `except servingd.errors.Unavailable`.

Here: `client.py` and `async_client.py`, which carry out the steps of `operations.py`. What is asked
and how answers are read is said by two APIs (`grpc_api.py`, `rest_api.py`), and carried by the
transports of the same names. All but the transports and the two clients is pure.
Not here: any part of the server; the client uses the wire format only. `remote.py` is the
exception: models of other servers, for servables that are made of them.
Start with `client.py`.
"""

from typing import TYPE_CHECKING, Any

from servingd.client.answers import ModelMetadata, Signature, TensorSpec, VersionStatus
from servingd.client.client import Client
from servingd.client.settings import Retry, Tls

if TYPE_CHECKING:
    from servingd.client.async_client import AsyncClient

__all__ = [
    "AsyncClient",
    "Client",
    "ModelMetadata",
    "Retry",
    "Signature",
    "TensorSpec",
    "Tls",
    "VersionStatus",
]


def __getattr__(name: str) -> Any:
    """Import what needs asyncio when it is asked for."""
    if name == "AsyncClient":
        from servingd.client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
