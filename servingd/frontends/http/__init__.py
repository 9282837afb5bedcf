"""The HTTP transport: servingd's own protocol class over httptools and uvloop.

Here: connections, limits, keep-alive, compression and draining. A request is a method, a target,
headers and a body; a response likewise.
Not here: JSON and routes; they are in the APIs. Start with `transport.py`, then `connection.py`.
"""
