"""The Open Inference Protocol: `inference.GRPCInferenceService`, and `/v2` over HTTP.

Here: its methods and routes, and what its requests and answers mean.
Not here: how its tensors travel (`wire/oip.py`), and what every API shares (`frontends/call.py`).
Start with `infer.py`.
"""
