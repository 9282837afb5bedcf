"""Decisions, as pure functions and plain objects: no thread, clock, file or socket.

Here: every decision that needs no knowledge of one servable type or source, namely the life cycle
of versions (`lifecycle/`), how memory and devices are assigned (`resources/`), and which calls run
together (`batching/`); and the Protocols that everything else implements (`servable.py`,
`call_protocols.py`). The import check refuses `threading`, `time`, `os` and such.
Not here: anything that waits; nor decisions about one type or source, which lie beside it as pure
modules (`servables/saved_model/merging/row_wise/`, `sources/polling.py`, `sources/scans.py`).
Start with `servable.py`, then `lifecycle/reconcile.py`.
"""
