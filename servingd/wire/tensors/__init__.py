"""Tensors between `TensorProto` and numpy, without copies where that can be.

Here: the general way (`decoding.py` and `encoding.py`, over the table in `types.py`), and requests
whose form is known from an earlier one (`templates.py`).
Not here: JSON. Start with `decoding.py`.
"""
