"""Every decision, as pure functions and plain objects: no thread, clock, file or socket.

Here: the life cycle of versions (`lifecycle/`), how memory and devices are assigned (`resources/`),
which calls run together (`batching/`), and the Protocols that everything else implements
(`servable.py`, `call_protocols.py`). The import check refuses `threading`, `time`, `os` and such.
Not here: anything that waits. Start with `servable.py`, then `lifecycle/reconcile.py`.
"""
