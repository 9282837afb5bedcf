"""The one owner of the versions' life cycle, and what it hands to others.

Here: the thread that feeds events to `core/lifecycle` and carries out its commands, the load pool,
the serving map (who is ready), the state monitor (who must know), and reloads.
Not here: what is to be done; `core/lifecycle/reconcile.py` decides. Start with `manager.py`.
"""
