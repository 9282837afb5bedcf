"""The versions that this process holds: loaded, ready to be called, and unloaded.

Here: what carries out the manager's commands about versions (`versions.py`), the pools that load
and unload (`load_jobs.py`), and the map of ready versions that every call reads
(`serving_map.py`). Not here: what ought to be loaded; the manager decides it, perhaps in another
process. Start with `versions.py`.
"""
