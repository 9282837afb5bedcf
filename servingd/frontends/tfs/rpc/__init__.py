"""TensorFlow Serving's gRPC methods: each takes a request's bytes and completes a reply.

Here: the table of methods and one file per method or family.
Not here: ports (`frontends/grpc`). A new method is a function and a line in `methods.py`.
"""
