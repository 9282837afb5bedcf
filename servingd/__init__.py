"""servingd: a TensorFlow-Serving-compatible model server.

Importing this package, or `servingd.client`, loads neither the server nor TensorFlow.
"""

__version__ = "0.2.0"
