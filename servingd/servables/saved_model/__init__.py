"""The type `tensorflow`: SavedModels.

Here: loading and serving (`loader.py`, `servable.py`, `replicas.py`, `relocation.py`), their files
(`files/`), sessions (`session/`), the optimiser, which makes a faster graph in a process of its own
(`optimise/`), which calls may be merged (`merging/`), and what both are tried on (`trials/`).
Not here: TensorFlow's import and its process-wide state (`servables/tensorflow_runtime`).
Start with `loader.py`.
"""
