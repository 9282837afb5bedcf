"""The platform `composite`: a tuple of models as one servable, wired by a small YAML file.

Here: the file as a graph of steps (`graph.py`), combining answers (`combining.py`), the signature
that follows from the parts (`wiring.py`), one call's way through the graph (`call.py`), and the
types' classes (`servable.py`).
Not here: the parts; they are models of the same server, of any type. Start with `graph.py`.
"""
