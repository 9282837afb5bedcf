"""The life of a version, from the moment it is wanted until it is gone.

Here: the states, the events that change them, and `reconcile.py`, which answers each event with
commands. Policies, retries, labels, the history of states, and what a call is told of a version
that is not there (`lookup_errors.py`) are here too.
Not here: what carries the commands out; that is `runtime/manager`. Start with `reconcile.py`.
"""
