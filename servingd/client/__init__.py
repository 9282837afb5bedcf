"""A small gRPC client, which `servingd predict` and tests use.

Here: one class that sends arrays and returns arrays. It needs no TensorFlow.
Not here: anything of the server; the client knows the wire only.
Start with `client.py`.
"""

from servingd.client.client import Client

__all__ = ["Client"]
