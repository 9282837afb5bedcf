"""Metrics, in both families (TensorFlow Serving's and servingd's), and the log.

Here: histograms and counters that the request path fills, and the pages that are made of them when
somebody asks. `metrics.py` holds them all. Those of several processes travel as plain data and are
merged (`snapshots.py`, `merge.py`).
Not here: the code that records; it is given the objects to record into. Start with `metrics.py`.
"""
