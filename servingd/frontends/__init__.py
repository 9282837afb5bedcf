"""How calls are received and answered.

Here: transports, which handle bytes and sockets and no API (`http/`, `grpc/`); APIs, which use no
sockets and not each other (`tfs/`, `admin/`); and what they share: `call.py`, `reply.py`, status
codes.
Not here: what a call does; that is `inference`. Start with `call.py`.
"""
