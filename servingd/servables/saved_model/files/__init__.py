"""What lies in a SavedModel's folder: is it whole, what does it say, what will it take.

Here: reading without TensorFlow, from listings and bytes, but for the check of weights and for
graphs in text format.
Not here: sessions. Start with `meta_graph.py`.
"""
