"""Which signatures answer each row as they would alone: f([a; b]) = [f(a); f(b)].

Only those may be merged without anybody having asked. `analysis` decides it from the graph, by the
table in `rules`. All of it is pure: no TensorFlow, no thread, no file.
Not here: the trial that runs real rows whole and in parts as a second lock, and measures how many
are worth merging (`optimise/merge_trial.py`). Start with `analysis`, then `values`; `graphs` and `evaluation` are its
parts.
"""
