"""The pages for operators over HTTP: probes, metrics, status and devices.

Here: `/livez`, `/readyz`, `/metrics` and `/servingd/v1`, with what administrators do there.
Not here: which path belongs to which API (`frontends/http_routes.py`), and TensorFlow Serving's own
paths (`frontends/tfs`). Start with `pages.py`.
"""
