"""The platform `onnx`: models that ONNX Runtime runs.

Here: whether the files are whole (`model_files.py`), which calls may be merged (`row_wise/`),
sessions and what they answer (`session.py`).
Not here: the package `onnx`, which nothing needs. Start with `platform.py`.
"""
