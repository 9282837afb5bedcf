"""The fleet that the manager commands: several workers that hold the same versions.

Here: which worker must do what (`state.py` with `records.py`, `estimates.py` and `costs.py`, pure),
the thread that carries it out (`fleet.py`), and questions to all workers (`gathering.py`). Not
here: processes. Start with `state.py`.
"""
