"""A small gRPC client, used by `servingd predict` and tests.

Here: one class that sends arrays and returns arrays. It needs no TensorFlow.
Not here: any part of the server; the client uses the wire format only.
Start with `client.py`.
"""

from servingd.client.client import Client

__all__ = ["Client"]
