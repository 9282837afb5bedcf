"""The servable types: what a version's folder means, and how it is loaded and run.

Here: one file or package per type, and the registry of all. A type is a Platform that makes Loaders
that make Servables (`core/serving.py`); `lookup_table.py` is the shortest one.
Not here: anything of calls, queues or ports. Start with `registry.py`.
"""
