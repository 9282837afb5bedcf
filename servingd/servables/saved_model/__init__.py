"""The type `tensorflow`: SavedModels.

Here: their files (`files/`), sessions (`session/`), the optimiser, which makes a faster graph in a
process of its own (`optimise/`), the analysis of which calls may be merged (`row_wise/`), and what
is reported to a server (`listener.py`).
Not here: TensorFlow's import and its process-wide state (`servables/tensorflow`). Start with
`loader.py`.
"""
