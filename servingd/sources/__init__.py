"""Which versions of which models ought to be loaded.

Here: the model catalogs (configured models, a repository's folders), the scans of base paths, the
watcher, and the poll of configuration files. What is found is reported to a `SourceListener` as
aspired versions.
Not here: what happens then (`core/lifecycle`). Start with `file_system.py`.
"""
