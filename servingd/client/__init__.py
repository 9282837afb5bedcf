"""The light client: numpy, grpcio and protobuf; never TensorFlow.

with Client("localhost:8500") as client:
    outputs = client.predict("half_plus_two", {"x": np.float32([1, 2, 5])})
"""

from servingd.client.client import Client

__all__ = ["Client"]
