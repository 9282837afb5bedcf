"""Which ONNX graphs work row by row: f([a; b]) = [f(a); f(b)] for all a and b.

Here: what is known of a tensor (`values.py`), a rule for each operator (`rules.py`, by kind:
`elementwise.py`, `shapes.py`, `layers.py`; each says why), and the walk over a graph
(`analysis.py`). Pure; it reads the graph and runs nothing.
Not here: anything learnt from examples. Start with `analysis.py`.
"""
