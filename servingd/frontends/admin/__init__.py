"""The pages for operators over HTTP: probes, metrics, status and devices.

Here: `/livez`, `/readyz`, `/metrics` and `/servingd/v1`, and which path belongs to which API.
Not here: TensorFlow Serving's own paths; they are in `frontends/tfs`. Start with `routes.py`.
"""
