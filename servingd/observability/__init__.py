"""Metrics, in both families (TensorFlow Serving's and ours), and the log.

Here: histograms and counters that the request path fills, and the pages that are made of them when
somebody asks. `metrics.py` holds them all.
Not here: who counts; each part is given what it fills. Start with `metrics.py`.
"""
