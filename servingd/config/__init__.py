"""All settings of an operator, as frozen dataclasses that are checked when they are made.

Here: the fields, their defaults and limits (`server.py`, `models.py`, ...), and how they are set:
by flags (`flags/`) and in `servingd.yaml` (`yaml/`). TensorFlow Serving's text protos are read in
`wire/config`, since they are protos.
Not here: decisions that depend on them. Start with `server.py`.
"""
