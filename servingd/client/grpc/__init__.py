"""The client over gRPC: what its calls are in messages (`api.py`), and how these are sent."""
