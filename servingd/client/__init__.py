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
        client.predict("half_plus_two", np.float32([1, 2]), version=1, timeout_s=5)

and within asyncio:

    import asyncio
    from servingd.client import AsyncClient

    async def main():
        async with AsyncClient("localhost:8500", connections=4) as client:
            calls = [client.predict("half_plus_two", [number]) for number in range(100)]
            print(sum(outputs["y"].item() for outputs in await asyncio.gather(*calls)))
            async for part in client.stream("half_plus_two", [1.0]):
                print(part["y"])

    asyncio.run(main())

Errors are those of `servingd.errors`, such as NotFound, Unavailable and DeadlineExceeded.

Here: `client.py` and `async_client.py`, which carry out the commands of `operations.py`. What is
asked and how answers are read is said by two APIs (`grpc/api.py`, `rest/api.py`), and carried by
transports with names alike. All but transports, clients and `address.py` is pure.
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
