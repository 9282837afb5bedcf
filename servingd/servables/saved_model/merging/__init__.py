"""Whether calls of a signature may be merged into one run, and how many rows are worth it.

Here: the analysis of the graph that decides it (`row_wise/`), and the trial on the session that
serves, which checks the answers once more and measures the costs (`trial.py`).
Not here: which calls wait and when they run; that is `core/batching` and `runtime/batching`. What
they are tried on (`trials/`). Start with `row_wise/analysis.py`.
"""
