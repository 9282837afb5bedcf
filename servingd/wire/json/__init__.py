"""JSON as TensorFlow Serving's REST API reads and writes it.

Here: a parser of its dialect, tensors and Examples from JSON, answers to JSON, and faster ways for
common forms (`fast.py`, `pieces.py`). DESIGN 019 says where numbers differ.
Not here: HTTP. Start with `tensors.py`.
"""
