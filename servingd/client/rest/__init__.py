"""The client over HTTP: what its calls are in documents (`api.py`), and how these are sent."""
