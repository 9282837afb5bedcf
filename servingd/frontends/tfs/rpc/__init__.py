"""TensorFlow Serving's gRPC methods: each takes a request's bytes and completes a reply.

Here: the table of methods and one file per method or family. A handler completes its reply now or
later, and never raises.
Not here: ports (`frontends/grpc`). Start with `methods.py`.
"""
