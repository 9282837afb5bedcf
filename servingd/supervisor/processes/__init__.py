"""The worker processes: begun, heard from, replaced, and blamed for their deaths.

Here: all of them (`crew.py`), one of them (`process.py`, `worker_handle.py`), when one is begun
anew and which version is to blame (`deaths.py`, `run_marks.py`), and when one is replaced for the
memory that unloads left (`leftovers.py`). Not here: what they are commanded. Start with `crew.py`.
"""
