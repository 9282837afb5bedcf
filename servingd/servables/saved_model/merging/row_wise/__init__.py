"""Which signatures answer each row as they would alone: f([a; b]) = [f(a); f(b)].

Unless an operator sets batching parameters or `merging: always`, only calls of these signatures are
merged. `analysis` decides it from the graph, by the table in `rules`. All of it is pure: no
TensorFlow, no thread, no file.
Not here: the trial that runs rows whole and in parts as a second check, and measures how many are
worth merging (`merging/trial.py`). Start with `analysis`, whose parts are `graphs` and
`evaluation`, then `values`.
"""
