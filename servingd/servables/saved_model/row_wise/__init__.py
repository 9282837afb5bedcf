"""Which signatures answer each row as they would alone: f([a; b]) = [f(a); f(b)].

Only those may be merged without anybody having asked. `analysis` decides it from the graph, by the
table in `rules`; `trial` runs real rows whole and in parts as a second lock, and measures how many
rows are worth merging. Everything here but `trial` is pure: no TensorFlow, no thread, no file.
Start with `analysis`, then `values`.
"""
