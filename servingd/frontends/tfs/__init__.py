"""TensorFlow Serving's API, over gRPC (`rpc/`) and over HTTP (`rest/`).

Here: how its requests are read and its answers written; both call the same use cases.
Not here: what a call does (`inference`), and message formats (`wire`). Start with `rpc/methods.py`
or `rest/api.py`.
"""
