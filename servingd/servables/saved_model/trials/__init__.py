"""Varied inputs, and whether two answers are the same.

Here: what optimised graphs and merged calls are tried on, as a second check behind what makes them
equal by construction.
Not here: the trials themselves (`optimise/child.py`, `merging/trial.py`). Start with `varied.py`.
"""
