"""How calls are received and answered.

Here: transports, which handle bytes and sockets and no API (`http/`, `grpc/`); APIs, which use no
sockets and not each other (`tfs/`, `admin/`); what they share (`call.py`, `reply.py`, status codes,
TLS, gRPC health, `workers.py`); which path is whose (`http_routes.py`); and `ports.py`, which
builds them all.
Not here: what a call does; that is `inference`. Start with `ports.py`, then `call.py`.
"""
