"""The gRPC transports: pygrpc-native for speed, and grpcio for everything else.

Here: ports, sockets, flow control and draining. A method is a function from bytes to a reply.
Not here: messages; they are in `frontends/tfs/rpc`. Start with `transport.py`.
"""
